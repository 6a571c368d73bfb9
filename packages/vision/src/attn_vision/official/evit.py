"""EViT checkpoints in the layout of youweiliang/evit, which is DeiT's and timm's."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from ..models.evit import EViTConfig
from ._fields import fitting
from .vit import config_from as vit_config

_CALL = ("call_keep_rate", "call_tokens")


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> EViTConfig:
    """Our configuration for the arguments and the weights of an official or a timm model.

    What a call is given, as `call_keep_rate`, is not part of the model and left out.

    Raises:
        ValueError: an argument has no counterpart here.

    Example:
        >>> options = {"depth": 2, "keep_rate": [1, 0.5], "fuse_token": False}
        >>> config_from(options, {}).keep_rates
        (1, 0.5)
    """
    own = ("keep_rate", "fuse_token", *_CALL)
    plain = vit_config({key: x for key, x in config.items() if key not in own}, state)
    rates = config.get("keep_rate", (1,))
    rates = tuple(rates) if isinstance(rates, list | tuple) else (rates,)
    fields: dict[str, Any] = asdict(plain) | {
        "keep_rates": rates,
        "fuse": bool(config.get("fuse_token", False)),
    }
    return EViTConfig(**fields)


def from_official(state: Mapping[str, Tensor], config: EViTConfig) -> dict[str, Tensor]:
    """Our state dict from an official one, or from that of any timm ViT; the names agree.

    Raises:
        ValueError: it is not of this model; the first names that differ are listed.
    """
    return fitting(state, config, "EViT")


def to_official(state: Mapping[str, Tensor], config: EViTConfig) -> dict[str, Tensor]:
    """The official state dict from ours; the inverse of `from_official`."""
    return dict(state)
