"""Universal approximation by a single-layer Transformer, with the weights and a certificate.

The statement is of Gumaan, 2025, "Universal Approximation Theorem for a Single-Layer Transformer",
arXiv 2507.10581; the constructive proof and its rate are ours, for functions with known Lipschitz
constants, and do not verify the paper's.
"""

from ..experiment import Paper
from .construction import Construction, approximate, degree_for
from .experiments import EXPERIMENTS
from .model import SingleLayerTransformer, TransformerConfig

PAPER = Paper(
    "universal_approximation",
    "Universal Approximation Theorem for a Single-Layer Transformer",
    "2507.10581",
    EXPERIMENTS,
)

__all__ = [
    "Construction",
    "PAPER",
    "SingleLayerTransformer",
    "TransformerConfig",
    "approximate",
    "degree_for",
]
