"""EScAIP on core-attn: an attention potential for molecules and crystals."""

from .graph import Batch, Graph, NearestNeighbors, SoftKNN
from .models import (
    VARIANTS,
    EScAIP,
    EScAIPConfig,
    EScAIPV1,
    EScAIPV1Config,
    Prediction,
    create,
)

__all__ = [
    "VARIANTS",
    "Batch",
    "EScAIP",
    "EScAIPConfig",
    "EScAIPV1",
    "EScAIPV1Config",
    "Graph",
    "NearestNeighbors",
    "Prediction",
    "SoftKNN",
    "create",
]
