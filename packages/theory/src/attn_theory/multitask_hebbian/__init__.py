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
