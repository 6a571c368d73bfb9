"""EScAIP on core-attn: an attention potential for molecules and crystals."""

from .calculator import AttnCalculator
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
from .potential import Potential, load_potential
from .prediction import predict

__all__ = [
    "VARIANTS",
    "AttnCalculator",
    "Batch",
    "EScAIP",
    "EScAIPConfig",
    "EScAIPV1",
    "EScAIPV1Config",
    "Graph",
    "NearestNeighbors",
    "Potential",
    "Prediction",
    "SoftKNN",
    "create",
    "load_potential",
    "predict",
]
