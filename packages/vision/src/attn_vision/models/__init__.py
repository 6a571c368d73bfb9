"""Models of the package and their named variants."""

from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from . import deit
from .skeleton import ImageConfig, ImageModel
from .staged_transformer import StagedConfig, StagedTransformer
from .vision_transformer import VisionTransformer, VisionTransformerConfig

VARIANTS: dict[str, ImageConfig] = {**deit.VARIANTS}

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
    if name not in VARIANTS:
        near = get_close_matches(name, VARIANTS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no model is named {name!r}{hint} Models: {', '.join(VARIANTS)}")
    config = VARIANTS[name]
    allowed = [field.name for field in fields(config)]
    for change in changes:
        if change not in allowed:
            raise ValueError(f"{name} has no setting {change!r}; settings: {', '.join(allowed)}")
    return replace(config, **changes).build()
