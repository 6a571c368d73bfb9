"""Attention as Pavlovian conditioning: associative memory, its rules and its capacity.

Source: Qiao, 2025, "Understanding Transformers through the Lens of Pavlovian Conditioning",
arXiv 2508.08289.
"""

from .. import catalog
from ..experiment import Paper
from .experiments import EXPERIMENTS
from .formulas import FORMULAS
from .rules import bcm, decaying, delta, hebbian, oja

NOTES = """\
The mapping (keys are conditional stimuli, values unconditional ones, queries tests) is the
abstract's. The laws are derived here; the reliability law is our reading of the abstract's error
propagation; the Oja and BCM rules are our additions.

The two versions of the abstract give the capacity as O(sqrt(d_k)) and O(d_k). Both stand, for
different questions: at a fixed average error capacity is 1 + tau d; with nothing wrong at all it is
about d / (2 log 32n); only where the coherence of the keys has to guarantee recall does it fall to
about sqrt(d / log d). In the trained comparison the delta rule errs less at every width, while the
nearest value is found as often by both; with value codes trained along and a cross-entropy loss,
linear attention was ahead by up to 8 points for narrow keys."""

PAPER = Paper(catalog.SOURCES["pavlov_memory"], EXPERIMENTS, NOTES, FORMULAS)

__all__ = ["PAPER", "bcm", "decaying", "delta", "hebbian", "oja"]
