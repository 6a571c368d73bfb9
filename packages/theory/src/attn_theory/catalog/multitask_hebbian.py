"""The experiments of Parallel Learning by Multitasking Neural Networks."""

from .entries import OURS, Entry, Source

SOURCE = Source(
    "multitask_hebbian",
    "Parallel Learning by Multitasking Neural Networks",
    "Agliari, Alessandrelli, Barra, Ricci-Tersenghi, 2023",
    "2308.04106",
    (
        Entry(
            "multitask_hebbian.dilution",
            "F1: overlaps against dilution: hierarchical (1-d) d^(k-1) below d_c, then towards "
            "equal amplitudes; self-consistency and Monte Carlo.",
            "abstract: hierarchical regime for mild dilution, parallel regime for strong dilution",
            40,
        ),
        Entry(
            "multitask_hebbian.temperature",
            "F2: overlaps against temperature: the hierarchy merges into equal amplitudes and "
            "vanishes at T_c = 1 - d.",
            "abstract: statistical mechanics against Monte Carlo; T_c is derived here",
            40,
        ),
        Entry(
            "multitask_hebbian.phases",
            "F3: phase diagram for three patterns, classified by the equality of the two largest "
            "overlaps of the solution reached from the hierarchical state.",
            "abstract: hierarchical and parallel regimes",
            40,
        ),
        Entry(
            "multitask_hebbian.finite",
            "Monte Carlo of every replica lies on the self-consistency of its own patterns; "
            "dotted: the infinite network.",
            "abstract: statistical mechanics against Monte Carlo",
            20,
        ),
        Entry(
            "multitask_hebbian.exact",
            "Glauber chains of small networks have the energies and overlap products of the "
            "Boltzmann sum.",
            OURS,
            5,
        ),
        Entry(
            "multitask_hebbian.examples",
            "F4, F5: overlaps with the archetypes against the number of examples, chains run until "
            "stationary: with and without a teacher the same above the learning threshold; below "
            "it the network without a teacher settles on examples, and apart once K M nears N.",
            "abstract: a teacher changes neither performance nor threshold",
            150,
        ),
        Entry(
            "multitask_hebbian.cost",
            "F6: along Glauber trajectories energy and the product of the two quadratic losses lie "
            "on one line exactly.",
            "abstract: cost function and loss function have the same minima",
            3,
        ),
        Entry(
            "multitask_hebbian.signal",
            "F7: one synchronous step (linear attention over the patterns) from an archetype: "
            "share of right spins against load, and against the entropy of the examples.",
            "abstract: signal-to-noise technique",
            15,
        ),
        Entry(
            "multitask_hebbian.growth",
            "F8: with K growing as log N all patterns are still retrieved together; deviations are "
            "those of the drawn patterns and fall as N^(-1/2).",
            "abstract: up to logarithmic growth of the number of patterns",
            30,
        ),
        Entry(
            "multitask_hebbian.hopfield",
            "F9: a standard Hopfield network (d = 0) retrieves one pattern; with blanks the others "
            "follow.",
            "abstract: standard Hebbian networks cannot learn in parallel",
            5,
        ),
        Entry(
            "multitask_hebbian.digits",
            "F10: scanned digits: class means with undecided pixels blank, test images relaxed.",
            OURS,
            2,
        ),
    ),
)
