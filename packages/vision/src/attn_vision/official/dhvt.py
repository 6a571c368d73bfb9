"""DHVT checkpoints in the layout of ArieSeirack/DHVT."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.dhvt import DHVTConfig
from ._fields import fitting, renamed
from .vit import FIELDS

_ONLY = {
    "ht_norm_eps": (1e-5,), "apply_dhvt": (True,), "with_bn": (True, False),
    "representation_size": (None, 0), "distilled": (False,),
}  # fmt: skip


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> DHVTConfig:
    """Our configuration for the arguments of an official model.

    Raises:
        ValueError: an argument has no counterpart here.

    Example:
        >>> config_from({"img_size": 16, "patch_size": 2, "embed_dim": 32}, {}).grid
        (8, 8)
    """
    return DHVTConfig(**renamed(config, FIELDS, _ONLY))


def from_official(state: Mapping[str, Tensor], config: DHVTConfig) -> dict[str, Tensor]:
    """Our state dict from an official one; the names agree.

    Raises:
        ValueError: it is not of this model; the first names that differ are listed.
    """
    return fitting(state, config, "DHVT")


def to_official(state: Mapping[str, Tensor], config: DHVTConfig) -> dict[str, Tensor]:
    """The official state dict from ours; the inverse of `from_official`."""
    return dict(state)
