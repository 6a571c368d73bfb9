"""Attention as Pavlovian conditioning: associative memory, its rules and its capacity.

Source: Qiao, 2025, "Understanding Transformers through the Lens of Pavlovian Conditioning",
arXiv 2508.08289.
"""

from ..experiment import Paper
from .experiments import EXPERIMENTS
from .rules import bcm, decaying, delta, hebbian, oja

PAPER = Paper(
    "pavlov_memory",
    "Understanding Transformers through the Lens of Pavlovian Conditioning",
    "2508.08289",
    EXPERIMENTS,
)

__all__ = ["PAPER", "bcm", "decaying", "delta", "hebbian", "oja"]
