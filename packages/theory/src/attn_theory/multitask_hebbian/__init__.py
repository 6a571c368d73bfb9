"""Multitasking Hebbian network: diluted patterns retrieved side by side.

Source: Agliari, Alessandrelli, Barra, Ricci-Tersenghi, 2023, "Parallel Learning by Multitasking
Neural Networks", arXiv 2308.04106. The paper's text was not available: formulas are derived and
checked against simulation, and a factor 1/(1-d) in the couplings, if the paper has one, would only
rescale beta.
"""

from ..experiment import Paper
from .dynamics import glauber, parallel_step, sweeps_at_zero
from .exact import boltzmann
from .experiments import EXPERIMENTS
from .model import Network, draw_examples, draw_patterns, magnetisations

PAPER = Paper(
    "multitask_hebbian",
    "Parallel Learning by Multitasking Neural Networks",
    "2308.04106",
    EXPERIMENTS,
    """The identity of Hamiltonian and loss, and the equality of the protocols with and without a
teacher, are the abstract's; everything else is derived here and checked against simulation. The
paper's N, number of sweeps, r and K were not found; a factor 1/(1-d) in its couplings, if there is
one, would only rescale the temperature.

What does not hold to the letter: at N = 3000 the two protocols differ by more than two standard
errors wherever the field is weak, by up to 0.06 in the sum of two overlaps; the gap comes from
couplings without a teacher, whose noise is of order sqrt(KM/N), and grows into the departure at
K M ~ N. Overlaps below N^(-1/2) are noise and may come out in another order or sign.""",
)

__all__ = [
    "Network",
    "PAPER",
    "boltzmann",
    "draw_examples",
    "draw_patterns",
    "glauber",
    "magnetisations",
    "parallel_step",
    "sweeps_at_zero",
]
