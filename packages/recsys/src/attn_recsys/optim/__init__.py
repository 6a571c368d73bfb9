"""Optimisers: TensorFlow's forms, and those that touch only the rows of the batch."""

from .deferred import DeferredAdam
from .dense import AdagradTF, AdamTF
from .pair import SPARSE, Pair, for_processes, make_optimizer
from .rowwise import RowAdagrad

__all__ = [
    "AdamTF", "AdagradTF", "DeferredAdam", "RowAdagrad", "Pair", "make_optimizer",
    "for_processes", "SPARSE",
]  # fmt: skip
