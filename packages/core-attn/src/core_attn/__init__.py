"""One attention core: operators, kernels, taps, layers and training."""

from .ops import attention, attention_mean, attention_row, attention_weights, use_backend, why
from .taps import Tap

__all__ = [
    "attention",
    "attention_weights",
    "attention_row",
    "attention_mean",
    "use_backend",
    "why",
    "Tap",
]
