"""Multitasking Hebbian network: diluted patterns retrieved side by side.

Source: Agliari, Alessandrelli, Barra, Ricci-Tersenghi, 2023, "Parallel Learning by Multitasking
Neural Networks", arXiv 2308.04106. The paper's text was not available: formulas are derived and
checked against simulation, and a factor 1/(1-d) in the couplings, if the paper has one, would only
rescale beta.
"""

from .. import catalog
from ..experiment import Paper
from .dynamics import glauber, parallel_step, sweeps_at_zero
from .exact import boltzmann
from .experiments import EXPERIMENTS
from .formulas import FORMULAS
from .model import Network, draw_examples, draw_patterns, magnetisations

NOTES = """\
The identity of Hamiltonian and loss, and the equality of the protocols with and without a
teacher, are the abstract's; everything else is derived here and checked against simulation. The
paper's N, number of sweeps, r and K were not found; a factor 1/(1-d) in its couplings, if there is
one, would only rescale the temperature.

Chains run in blocks that double until the energy moves by no more than two standard errors from
one block to the next, and are averaged over the last block.

What does not hold to the letter: below the learning threshold (rho well above 1) and with few
examples the two protocols part at any size. At r = .2, M = 5 the network without a teacher leaves
the archetypes, from whatever start, for an example (overlap .70), whose energy is lower (H/N =
-.232 against -.201 where a teacher's network settles); the sum of its two overlaps with the
archetypes is .18 to .21 against .37 at N = 3000, and no nearer at 6000 and 12000. Above the
threshold the protocols agree. All qualities lie on one curve in rho where examples are many: rho is
the variance of their noise, which is Gaussian only then. At rho = 1 and T = .1 the theory's largest
overlap is .3435 for 99 examples, .3424 for 24, .3493 for 8, .4089 for 3 (.4193 at T = .05). Of
several orders of the patterns that are equal in the limit, spins take the one that suits the drawn
patterns: for K = 5 near d_c this lifts the sum of m^2 by .8 N^(-1/2) above the infinite
network."""

PAPER = Paper(catalog.SOURCES["multitask_hebbian"], EXPERIMENTS, NOTES, FORMULAS)

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
