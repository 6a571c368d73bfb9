"""Click models by name."""

from typing import Any

from core_attn.variants import variant

from ..layout import Layout
from . import autoint, baselines
from .autoint import AutoInt, AutoIntConfig, BlockConfig, InteractingBlock
from .baselines import FM, LR, MLP, BaselineConfig, ClickModel, DCNv2, DeepFM, FinalMLP
from .embedding import FieldEmbedding

__all__ = [
    "create",
    "VARIANTS",
    "AutoInt",
    "AutoIntConfig",
    "BlockConfig",
    "InteractingBlock",
    "FieldEmbedding",
    "BaselineConfig",
    "LR",
    "FM",
    "DeepFM",
    "DCNv2",
    "FinalMLP",
    "MLP",
]

VARIANTS: dict[str, AutoIntConfig | BaselineConfig] = {**autoint.VARIANTS, **baselines.VARIANTS}
Model = AutoInt | ClickModel


def create(name: str, layout: Layout, /, *, sparse: bool = False, **changes: Any) -> Model:
    """Builds a model of the table `VARIANTS`, untrained.

    Args:
        name: which.
        layout: the fields.
        sparse: whether the tables' gradients are sparse, for the row-wise optimisers.
        changes: fields of its configuration to set otherwise.

    Raises:
        ValueError: no such model, or no such field of its configuration.

    Example:
        >>> create("autoint", Layout.plain(3, rows=9), heads=4).config.heads
        4
    """
    return variant(VARIANTS, name, **changes).build(layout, sparse=sparse)
