"""Converters from official checkpoints to the models of this package."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import Tensor

from ..models.moh_dit import MoHDiTConfig
from ..models.positions import resize_positions
from ..models.skeleton import ImageConfig, ImageModel
from ..models.spectral_gate import SpectralGate, resize_spectral

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
LABELS = "y_embedder.embedding_table.weight"


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


def classes_of(state: Mapping[str, Tensor], config: ImageConfig) -> int:
    """How many classes the weights of a file are for, under official names or ours."""
    if isinstance(config, MoHDiTConfig) and LABELS in state:  # one more row stands for no class
        return len(state[LABELS]) - (config.label_dropout > 0)
    return next((len(state[name]) for name in HEADS if name in state), 0)


def converted(state: Mapping[str, Tensor], config: ImageConfig) -> dict[str, Tensor]:
    """Weights under our names, from an official state dict with any number of classes.

    Raises:
        ValueError: it is not of this model; the first names that differ are listed.
    """
    classes = classes_of(state, config)
    return converter(config).from_official(state, replace(config, classes=classes))


def adapted(state: Mapping[str, Tensor], model: ImageModel) -> dict[str, Tensor]:
    """Weights of a file as `model` can take them: our names, positions and gates of its grid.

    Args:
        state: ours or official; a head for other classes is kept and will not fit.
        model: that they are for.

    Raises:
        ValueError: they are of another model, or positions or gates lie on no square grid.
    """
    own, config = model.state_dict(), model.config
    readings = [dict(state)]
    if type(config).__name__ in _CONVERTERS:
        rename = getattr(converter(config), "under_our_names", None)  # none where names agree
        readings = [rename(state, config), *readings] if rename else readings
    ours = max(readings, key=lambda read: sum(name in own for name in read))
    if 2 * sum(name in own for name in ours) < len(own):
        return converted(state, config)  # tells what differs
    for name, x in ours.items():
        if name not in own or x.shape == own[name].shape:
            continue
        if name == "pos_embed" and hasattr(config, "grid"):  # else it is of fixed waves
            ours[name] = _resized_positions(x, own[name], model)
        elif name.endswith(".complex_weight"):
            ours[name] = _resized_gate(name, x, model)
    return ours


def _resized_positions(positions: Tensor, wanted: Tensor, model: ImageModel) -> Tensor:
    config: Any = model.config
    prefix = config.prefix if getattr(config, "prefix_positions", False) else 0
    patches = positions.shape[1] - prefix
    side = round(patches**0.5) if patches > 0 else 0
    if side < 1 or side * side != patches or positions.shape[2] != wanted.shape[2]:
        raise ValueError(
            f"positions of the file are {tuple(positions.shape)}, the model has "
            f"{tuple(wanted.shape)}: they cannot be resized"
        )
    print(f"positions resized from {side}x{side} to {config.grid[0]}x{config.grid[1]} patches")
    antialias = getattr(model, "antialias", True)
    return resize_positions(positions, (side, side), config.grid, prefix, antialias=antialias)


def _resized_gate(name: str, weight: Tensor, model: ImageModel) -> Tensor:
    gate, rows = model.get_submodule(name.removesuffix(".complex_weight")), weight.shape[0]
    assert isinstance(gate, SpectralGate)
    if weight.shape[2:] != gate.complex_weight.shape[2:] or weight.shape[1] != rows // 2 + 1:
        raise ValueError(
            f"{name} of the file is {tuple(weight.shape)}, that of the model "
            f"{tuple(gate.complex_weight.shape)}: it cannot be resized"
        )
    print(f"{name} resized from {rows}x{rows} to {gate.grid[0]}x{gate.grid[1]} tokens")
    return resize_spectral(weight, (rows, rows), gate.grid)
