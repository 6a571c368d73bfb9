"""Click models on core-attn: AutoInt, its baselines, their data and their training."""

from .layout import Layout
from .models import VARIANTS, AutoInt, AutoIntConfig, create
from .optim import make_optimizer
from .schema import Field, Schema
from .scoring import Scorer

__all__ = [
    "Layout",
    "VARIANTS",
    "AutoInt",
    "AutoIntConfig",
    "create",
    "make_optimizer",
    "Field",
    "Schema",
    "Scorer",
]
