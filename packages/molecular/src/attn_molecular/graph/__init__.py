"""Structures as tensors, and the neighborhoods of their atoms."""

from .batch import Batch
from .graph import Graph
from .pairs import Pairs, pairs_within
from .radius import NearestNeighbors
from .soft_knn import SoftKNN

__all__ = ["Batch", "Graph", "NearestNeighbors", "Pairs", "SoftKNN", "pairs_within"]
