"""Tables of clicks: preparation, and data modules that load them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .advertising import KDD12, Avazu, Criteo
    from .insteval import InstEval
    from .module import ClickData, TableData
    from .movielens import MovieLens1M
    from .synthetic import SyntheticClicks

__all__ = [
    "ClickData", "TableData", "SyntheticClicks", "InstEval", "MovieLens1M", "Criteo", "Avazu",
    "KDD12",
]  # fmt: skip

# Scoring reads batches without the trainer, whose import takes seconds.
_LAZY = {
    "ClickData": "module",
    "TableData": "module",
    "SyntheticClicks": "synthetic",
    "InstEval": "insteval",
    "MovieLens1M": "movielens",
    "Criteo": "advertising",
    "Avazu": "advertising",
    "KDD12": "advertising",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
