"""Converters from official checkpoints to the models of this package."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import Tensor

from ..models.positions import resize_positions
from ..models.skeleton import ImageConfig, ImageModel

# Configuration class -> module with `config_from`, `from_official` and `to_official`.
_CONVERTERS = {
    "VisionTransformerConfig": "vit",
    "ConViTConfig": "convit",
    "DHVTConfig": "dhvt",
    "EViTConfig": "evit",
    "SparsifinerConfig": "sparsifiner",
    "HaloNetConfig": "halonet",
    "SpectFormerConfig": "spectformer",
    "SpectFormerHConfig": "spectformer",
    "MoHViTConfig": "moh",
    "MoHDiTConfig": "moh",
}
HEADS = ("head.bias", "head.fc.bias", "fc.bias", "head.linear.bias")


def converter(config: ImageConfig) -> ModuleType:
    """The module that converts official checkpoints of a model.

    Raises:
        ValueError: there is none: the model has no official checkpoints.

    Example:
        >>> from attn_vision import VARIANTS
        >>> converter(VARIANTS["convit_tiny"]).__name__
        'attn_vision.official.convit'
    """
    name = type(config).__name__
    if name not in _CONVERTERS:
        raise ValueError(f"there are no official checkpoints of a {name.removesuffix('Config')}")
    return import_module(f".{_CONVERTERS[name]}", __name__)


def converted(state: Mapping[str, Tensor], config: ImageConfig) -> dict[str, Tensor]:
    """Weights under our names, from an official state dict with any number of classes.

    Raises:
        ValueError: it is not of this model; the first names that differ are listed.
    """
    classes = next((len(state[name]) for name in HEADS if name in state), 0)
    return converter(config).from_official(state, replace(config, classes=classes))


def adapted(state: Mapping[str, Tensor], model: ImageModel) -> dict[str, Tensor]:
    """Weights of a file as `model` can take them: our names, positions of its grid.

    Args:
        state: ours or official; a head for other classes is kept and will not fit.
        model: that they are for.

    Raises:
        ValueError: they are of another model, or positions lie on no square grid.
    """
    own, config = model.state_dict(), model.config
    known = sum(name in own for name in state)
    ours = dict(state) if 2 * known >= len(own) else converted(state, config)
    target: Any = config
    positions, wanted = ours.get("pos_embed"), own.get("pos_embed")
    if positions is None or wanted is None or positions.shape == wanted.shape:
        return ours
    prefix = target.prefix if getattr(target, "prefix_positions", False) else 0
    patches = positions.shape[1] - prefix
    side = round(patches**0.5)
    if side * side != patches or positions.shape[2] != wanted.shape[2]:
        raise ValueError(
            f"positions of the file are {tuple(positions.shape)}, the model has "
            f"{tuple(wanted.shape)}: they cannot be resized"
        )
    ours["pos_embed"] = resize_positions(
        positions, (side, side), target.grid, prefix, antialias=getattr(model, "antialias", True)
    )
    print(f"positions resized from {side}x{side} to {target.grid[0]}x{target.grid[1]} patches")
    return ours
