"""The papers and their experiments in words: what is listed before anything is loaded.

Figure and theorem numbers of the papers were not at hand: an experiment is told by the claim of the
abstract, or the figure of the authors' code, that it belongs to.
"""

from dataclasses import dataclass

OURS = "ours: no claim of the paper"


@dataclass(frozen=True)
class Entry:
    """An experiment in words.

    Attributes:
        name: "<paper>.<experiment>".
        title: what it shows, one sentence.
        claim: the figure, theorem or claim of the paper that it belongs to.
        seconds: what the full run takes on one core.
    """

    name: str
    title: str
    claim: str
    seconds: float

    @property
    def paper(self) -> str:
        """The paper's short name."""
        return self.name.partition(".")[0]

    @property
    def short(self) -> str:
        """The name within the paper."""
        return self.name.partition(".")[2]


@dataclass(frozen=True)
class Source:
    """A paper.

    Attributes:
        name: the short name used on the command line.
        title, authors, arxiv: of the paper.
        entries: its experiments, in the order of its page.
    """

    name: str
    title: str
    authors: str
    arxiv: str
    entries: tuple[Entry, ...]


ICL_LINEAR = Source(
    "icl_linear",
    "In-Context Linear Regression Demystified",
    "He, Pan, Chen, Yang, 2025",
    "2503.12734",
    (
        Entry(
            "icl_linear.estimators",
            "E1: risk of two heads, one head, gradient descent, debiased gradient descent and "
            "ridge against context length, on common prompts, with closed forms.",
            "authors' code, figure that compares estimators over L; abstract: trained attention is "
            "a debiased gradient step",
            15,
        ),
        Entry(
            "icl_linear.heads",
            "E2: risk of trained models of 1, 2, 4 and 8 heads; all seeds, with the number of them "
            "that found heads of both signs.",
            "authors' code, figure of the head count; abstract: several heads outperform one",
            70,
        ),
        Entry(
            "icl_linear.dynamics",
            "E3, E4: KQ becomes a multiple of the identity, OV reads the label alone, the values "
            "sum to zero; trajectories of omega and mu, all seeds.",
            "authors' code, heat maps and trajectories; abstract: diagonal homogeneous KQ, "
            "last-entry-only zero-sum OV",
            40,
        ),
        Entry(
            "icl_linear.flow",
            "E4: gradient flow on the approximate loss for two heads: the signs split, the values "
            "sum to zero, then omega drifts as t^(-1/6); runs whose heads start alike stay with "
            "one sign.",
            "the paper's training dynamics on its approximate loss; the drift is derived here",
            15,
        ),
        Entry(
            "icl_linear.landscape",
            "E5: along the valley of the symmetric pair the risk hardly rises: gamma is where "
            "training stopped, not a fixed point.",
            OURS,
            3,
        ),
        Entry(
            "icl_linear.length",
            "E6: tuned at length 40, softmax heads improve with longer contexts, unnormalised "
            "linear attention fails away from it.",
            "abstract: softmax attention generalizes to longer sequences, linear attention does "
            "not",
            5,
        ),
        Entry(
            "icl_linear.preconditioner",
            "E7: covariates correlated as rho^|i-j|: the learned KQ is the best preconditioner of "
            "a debiased gradient step.",
            "abstract: non-isotropic covariates, preconditioned gradient descent",
            20,
        ),
        Entry(
            "icl_linear.multitask",
            "E8: two tasks on overlapping coordinates: one head smooths, two share one step, three "
            "keep the tasks apart in superposition.",
            "authors' code, multi-task notebook; abstract: superposition of tasks in heads",
            45,
        ),
        Entry(
            "icl_linear.proportional",
            "E9: with d growing in proportion to the length, one gradient step stays within a "
            "constant factor of the Bayes risk.",
            "abstract: near Bayes optimality up to a proportional factor",
            20,
        ),
        Entry(
            "icl_linear.diabetes",
            "E10: rows of a real table as prompts: two heads equal debiased gradient descent; on "
            "correlated features the isotropic step is wrong and a single head does better.",
            OURS,
            10,
        ),
        Entry(
            "icl_linear.debiasing",
            "E11: with covariates of non-zero mean the two heads follow debiased gradient descent, "
            "far below plain gradient descent; with centred covariates debiasing costs a little.",
            OURS,
            6,
        ),
    ),
)

RANDOM_FEATURE_ATTENTION = Source(
    "random_feature_attention",
    "What can a Single Attention Layer Learn? A Study Through the Random Features Lens",
    "Fu, Guo, Bai, Mei, 2023",
    "2307.11353",
    (
        Entry(
            "random_feature_attention.kernel",
            "The closed form of the infinite-head kernel against finite heads; permuting or "
            "duplicating keys changes nothing; scores have unit variance.",
            "the paper's random-feature model; its kernel in closed form is derived here",
            5,
        ),
        Entry(
            "random_feature_attention.fast",
            "d = N = 8, 400 heads: test error of RFA, BRFA and a two-layer network of equal size "
            "on permutation-invariant targets; with a rotation between query and keys as control. "
            "Stars: one seed of an earlier run.",
            "abstract: fewer samples than a two-layer network; weights with a mean help",
            210,
        ),
        Entry(
            "random_feature_attention.large",
            "d = N = 16, 1000 heads (17,000 parameters), the paper's size as recalled: the network "
            "has learned nothing of even degrees where attention has; q = 4 is learned by nobody.",
            "the paper's simulations, at their size as recalled",
            140,
        ),
        Entry(
            "random_feature_attention.heads",
            "More heads at a fixed sample size: the error falls towards that of the infinite-head "
            "kernel; with 1280 heads it is still up to a fifth above.",
            "abstract: excess risk bounds with finitely many heads",
            60,
        ),
        Entry(
            "random_feature_attention.dimension",
            "Samples that RFA needs for a quadratic of a key grow as about d^2.",
            "abstract: sample complexity; the exponents as recalled",
            60,
        ),
    ),
)

UNIVERSAL_APPROXIMATION = Source(
    "universal_approximation",
    "Universal Approximation Theorem for a Single-Layer Transformer",
    "Gumaan, 2025",
    "2507.10581",
    (
        Entry(
            "universal_approximation.certificate",
            "U1: f1 = |x1 - x2|, f2 = max(x1, x2^2): the constructed block's sup error stays below "
            "its certificate and falls as 1/degree in the limit.",
            "the paper's theorem, by a construction of our own",
            12,
        ),
        Entry(
            "universal_approximation.random_maps",
            "U1: random convex piecewise-linear maps, degree 8: no error exceeds its certificate.",
            "the paper's theorem, by a construction of our own",
            10,
        ),
        Entry(
            "universal_approximation.maps",
            "U2: the error of the construction sits on the kinks and the border.",
            OURS,
            3,
        ),
        Entry(
            "universal_approximation.trained",
            "U3: training finds far smaller networks than the construction, but only the "
            "construction carries a certificate.",
            OURS,
            80,
        ),
        Entry(
            "universal_approximation.positions",
            "U4: without positions no width goes below the certified 1/2 on a target that is not "
            "equivariant; an equivariant target is learned.",
            "the paper's theorem: where it needs positions",
            40,
        ),
        Entry(
            "universal_approximation.sharpness",
            "U5: the leak of the copying heads vanishes as e^-B, down to the floor of the other "
            "terms.",
            OURS,
            10,
        ),
        Entry(
            "universal_approximation.smooth",
            "U6: on the smooth cos(pi x1) x2 a degree of 4 is already close; the worst points lie "
            "on the border, where the even extension has a kink.",
            OURS,
            10,
        ),
    ),
)

PAVLOV_MEMORY = Source(
    "pavlov_memory",
    "Understanding Transformers through the Lens of Pavlovian Conditioning",
    "Qiao, 2025",
    "2508.08289",
    (
        Entry(
            "pavlov_memory.errors",
            "P1: the error of Hebbian recall is (n-1)/d; its bits flip as Gaussian crosstalk "
            "predicts.",
            "abstract: capacity theorem; the law is derived here",
            30,
        ),
        Entry(
            "pavlov_memory.capacity",
            "P2: capacity grows as d at a fixed average error, as d/log when nothing may be wrong, "
            "as sqrt(d) where coherence has to guarantee it: both statements of the paper's two "
            "versions.",
            "abstract: capacity theorem, O(sqrt(d_k)) in version 1 and O(d_k) in version 2",
            30,
        ),
        Entry(
            "pavlov_memory.passes",
            "P3: the delta rule beats the Hebbian one in a single pass, is exact after many up to "
            "n = d, and needs a falling rate to reach the least-squares floor beyond.",
            "abstract: biologically plausible learning rules",
            55,
        ),
        Entry(
            "pavlov_memory.depth",
            "P4: a chain of linear memories errs as (1 + (n-1)/(dH))^L - 1; softmax clean-up after "
            "each layer removes the compounding.",
            "abstract: error propagation over depth, width and heads; the law is derived here",
            15,
        ),
        Entry(
            "pavlov_memory.reliability",
            "P5: with heads that fail independently, (1 - p^H)^L: heads need to grow only as the "
            "log of the depth.",
            "abstract: error propagation, in our reading",
            5,
        ),
        Entry(
            "pavlov_memory.conditioning",
            "P6: acquisition and extinction, blocking, overshadowing and conditioned inhibition "
            "under the delta rule; a Hebbian memory shows no blocking.",
            "abstract: queries, keys and values as the stimuli of classical conditioning",
            1,
        ),
        Entry(
            "pavlov_memory.sharpness",
            "P7: the softmax sharpness needed for clean retrieval grows as log n.",
            OURS,
            15,
        ),
        Entry(
            "pavlov_memory.trained",
            "P8: trained to recall pairs, a delta-rule layer errs less than a linear-attention "
            "layer at every width, as the laws say; in accuracy of the nearest value the two are "
            "level.",
            OURS,
            60,
        ),
    ),
)

MULTITASK_HEBBIAN = Source(
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

SOURCES = {
    source.name: source
    for source in (
        ICL_LINEAR,
        RANDOM_FEATURE_ATTENTION,
        UNIVERSAL_APPROXIMATION,
        PAVLOV_MEMORY,
        MULTITASK_HEBBIAN,
    )
}


def entry(name: str) -> Entry:
    """The experiment of a name.

    Raises:
        ValueError: there is none; the message lists the paper's experiments, or the papers.

    Example:
        >>> entry("icl_linear.flow").seconds
        15
    """
    paper = name.partition(".")[0]
    if paper in SOURCES:
        for found in SOURCES[paper].entries:
            if found.name == name:
                return found
        names = [found.name for found in SOURCES[paper].entries]
    else:
        names = list(SOURCES)
    raise ValueError(f"no experiment {name!r}; there are {', '.join(names)}")


def select(name: str) -> list[Entry]:
    """The experiments of a paper, of all papers ("all"), or one.

    Raises:
        ValueError: no such paper or experiment.

    Example:
        >>> len(select("all")), len(select("icl_linear")), select("icl_linear.flow")[0].short
        (42, 11, 'flow')
    """
    if name == "all":
        return [found for source in SOURCES.values() for found in source.entries]
    if name in SOURCES:
        return list(SOURCES[name].entries)
    return [entry(name)]
