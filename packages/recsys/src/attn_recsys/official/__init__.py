"""Weights of other implementations, to ours and back."""

from .deepctr_torch import blocks_from_deepctr, from_deepctr
from .fuxictr import blocks_from_fuxictr, from_fuxictr
from .tensorflow import from_tensorflow, to_tensorflow

__all__ = [
    "from_tensorflow",
    "to_tensorflow",
    "from_fuxictr",
    "blocks_from_fuxictr",
    "from_deepctr",
    "blocks_from_deepctr",
]
