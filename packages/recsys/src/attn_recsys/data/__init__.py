"""Tables of clicks: preparation, and data modules that load them."""

from .advertising import KDD12, Avazu, Criteo
from .insteval import InstEval
from .module import ClickData, TableData
from .movielens import MovieLens1M
from .synthetic import SyntheticClicks

__all__ = [
    "ClickData", "TableData", "SyntheticClicks", "InstEval", "MovieLens1M", "Criteo", "Avazu",
    "KDD12",
]  # fmt: skip
