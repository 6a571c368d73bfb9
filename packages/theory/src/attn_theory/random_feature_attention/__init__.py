"""Random-feature attention: frozen random query-key weights, trained values.

Source: Fu, Guo, Bai, Mei, 2023, "What can a Single Attention Layer Learn? A Study Through the
Random Features Lens", arXiv 2307.11353.
"""

from ..experiment import Paper
from .data import Inputs, sphere
from .experiments import EXPERIMENTS
from .kernel import infinite_kernel
from .model import RandomFeatureAttention, RandomFeatureMLP, RFAConfig

PAPER = Paper(
    "random_feature_attention",
    "What can a Single Attention Layer Learn?",
    "2307.11353",
    EXPERIMENTS,
)

__all__ = [
    "Inputs",
    "PAPER",
    "RFAConfig",
    "RandomFeatureAttention",
    "RandomFeatureMLP",
    "infinite_kernel",
    "sphere",
]
