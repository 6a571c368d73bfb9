"""Models of the package and their named variants."""

from typing import Any

from core_attn.variants import variant

from . import (
    convit,
    deit,
    dhvt,
    evit,
    halonet,
    moh_dit,
    moh_vit,
    sparsifiner,
    spectformer,
    spectformer_hierarchical,
    tic,
)
from .skeleton import ImageConfig, ImageModel
from .staged_transformer import StagedConfig, StagedTransformer
from .vision_transformer import VisionTransformer, VisionTransformerConfig

VARIANTS: dict[str, ImageConfig] = {
    **deit.VARIANTS,
    **convit.VARIANTS,
    **dhvt.VARIANTS,
    **evit.VARIANTS,
    **halonet.VARIANTS,
    **sparsifiner.VARIANTS,
    **moh_vit.VARIANTS,
    **moh_dit.VARIANTS,
    **spectformer.VARIANTS,
    **spectformer_hierarchical.VARIANTS,
    **tic.VARIANTS,
}

__all__ = [
    "VARIANTS",
    "ImageConfig",
    "ImageModel",
    "StagedConfig",
    "StagedTransformer",
    "VisionTransformer",
    "VisionTransformerConfig",
    "create",
]


def create(name: str, **changes: Any) -> ImageModel:
    """Builds a named variant, untrained.

    Args:
        name: a key of `VARIANTS`.
        changes: fields of its configuration that differ, as `classes` or `image_size`.

    Raises:
        ValueError: no variant or no field has that name.

    Example:
        >>> model = create("deit_tiny", classes=10)
        >>> sum(p.numel() for p in model.parameters())
        5526346
    """
    return variant(VARIANTS, name, **changes).build()
