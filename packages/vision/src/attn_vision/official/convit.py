"""ConViT checkpoints in the layout of facebookresearch/convit and timm."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.convit import ConViTConfig
from ._fields import fitting, renamed
from .vit import FIELDS

_FIELDS = FIELDS | {
    "local_up_to_layer": "local_layers",
    "locality_strength": "locality_strength",
    "use_pos_embed": "positions",
    "global_pool": "pool",
}
_POOLS = {None: "class", "token": "class", "avg": "mean"}
_ONLY = {"hybrid_backbone": (None,), "qk_scale": (None,)}


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> ConViTConfig:
    """Our configuration for the arguments and the weights of an official model.

    timm's `embed_dim` is that of one head, the official one that of all; the weights tell which
    is meant.

    Raises:
        ValueError: an argument has no counterpart here.

    Example:
        >>> config_from({"embed_dim": 48, "num_heads": 4, "local_up_to_layer": 3}, {}).local_layers
        3
    """
    ours = renamed(config, _FIELDS, _ONLY)
    if ours.get("pool") not in _POOLS:
        raise ValueError(f"no counterpart for global_pool={ours['pool']!r}; only 'token' and 'avg'")
    ours["pool"] = _POOLS[ours.get("pool")]
    if "cls_token" in state:
        ours["dim"] = state["cls_token"].shape[-1]
    return ConViTConfig(**ours)


def from_official(state: Mapping[str, Tensor], config: ConViTConfig) -> dict[str, Tensor]:
    """Our state dict from an official one; the names agree.

    timm keeps the table of distances, which is a constant, as `rel_indices`; it is left out.

    Raises:
        ValueError: it is not of this model; the first names that differ are listed.
    """
    return fitting(under_our_names(state, config), config, "ConViT")


def under_our_names(state: Mapping[str, Tensor], config: ConViTConfig) -> dict[str, Tensor]:
    """The weights of an official state dict of any size."""
    return {name: x for name, x in state.items() if not name.endswith("attn.rel_indices")}


def to_official(state: Mapping[str, Tensor], config: ConViTConfig) -> dict[str, Tensor]:
    """The official state dict from ours; the inverse of `from_official`."""
    return dict(state)
