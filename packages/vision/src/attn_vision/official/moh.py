"""MoH checkpoints in the layout of SkyworkAI/MoH: MoH-ViT, MoH-DiT, and parts of them."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.moh_dit import MoHDiTConfig
from ..models.moh_vit import MoHViTConfig
from ._fields import fitting, renamed

_VIT = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "in_chans": "channels",
    "num_classes": "classes",
    "embed_dims": "dims",
    "num_heads": "heads",
    "depths": "depths",
    "sr_ratios": "shrinks",
    "mlp_ratios": "mlp_ratios",
    "shared_head": "shared",
    "routed_head": "routed",
    "norm_eps": "norm_eps",
    "qkv_bias": "qkv_bias",
    "drop_path_rate": "drop_path",
    "pretrain_size": "pretrain_size",
}
_VIT_ONLY = {
    "drop_rate": (0, 0.0),
    "attn_drop_rate": (0, 0.0),
    "fixed_pool_size": (None,),
}
_DIT = {
    "input_size": "image_size",
    "patch_size": "patch_size",
    "in_channels": "channels",
    "hidden_size": "dim",
    "num_heads": "heads",
    "shared_head": "shared",
    "routed_head": "routed",
    "head_dim": "head_dim",
    "num_classes": "classes",
    "mlp_ratio": "mlp_ratio",
    "class_dropout_prob": "label_dropout",
    "learn_sigma": "learn_sigma",
}
# official name -> ours, in turn; the right sides are also patterns for the way back.
_PARTS = (
    (r"\bwg_0\.", "gate.to_groups."),
    (r"\bwg_1\.", "gate.to_shared."),
    (r"\bwg\.", "gate.to_routed."),
    (r"\bcpb_(fc[12])\.", r"positions.\1."),
    (r"\bdwconv\.dwconv\.", "dwconv."),
)
_BACK = (
    (r"\bgate\.to_groups\.", "wg_0."),
    (r"\bgate\.to_shared\.", "wg_1."),
    (r"\bgate\.to_routed\.", "wg."),
    (r"\bpositions\.(fc[12])\.", r"cpb_\1."),
    (r"\bdwconv\.", "dwconv.dwconv."),
)


def config_from(
    config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> MoHViTConfig | MoHDiTConfig:
    """Our configuration for the arguments of an official TransNeXt or DiT.

    Raises:
        ValueError: an argument has no counterpart here, or it is neither.

    Example:
        >>> options = {"num_heads": 4, "depth": 2, "shared_head": [2, 4], "routed_head": [1, 0]}
        >>> config_from(options | {"hidden_size": 32}, {}).head_dim
        8
    """
    if "embed_dims" in config or "depths" in config:
        windows = {window for window in config.get("window_size", ()) if window is not None}
        if len(windows) > 1:
            raise ValueError(f"no counterpart for windows of different sizes: {sorted(windows)}")
        stages = len(config.get("depths", MoHViTConfig.depths))
        rest = {key: x for key, x in config.items() if key != "window_size"}
        fields = renamed(rest, _VIT, _VIT_ONLY | {"num_stages": (stages,)})
        return MoHViTConfig(**fields, window=next(iter(windows), 3))
    return MoHDiTConfig(**renamed(_spelled_out(config), _DIT, {"moh": (True,)}))


def _spelled_out(config: Mapping[str, Any]) -> dict[str, Any]:
    """A DiT's arguments with a number of heads for each block, and one width of all heads."""
    rest = dict(config)
    heads, widths = rest.get("num_heads", 16), rest.get("head_dim")
    depth = rest.pop("depth", 28 if isinstance(heads, int) else len(heads))
    if isinstance(heads, int):  # the official code then takes no notice of head_dim
        heads, widths = [heads] * depth, None
    if len(heads) != depth:
        raise ValueError(f"num_heads must have one entry per block ({depth}), got {len(heads)}")
    widths = list(widths) if isinstance(widths, list | tuple) else [widths] * depth
    dim = rest.get("hidden_size", 1152)
    every = {width or dim // count for width, count in zip(widths, heads, strict=True)}
    if len(every) != 1:
        raise ValueError(f"no counterpart for heads of different widths: {sorted(every)}")
    return rest | {"num_heads": tuple(heads), "head_dim": every.pop()}


def from_official(
    state: Mapping[str, Tensor], config: MoHViTConfig | MoHDiTConfig
) -> dict[str, Tensor]:
    """Our state dict from an official one.

    Raises:
        ValueError: it is not of this model; the first names that differ are listed.
    """
    return fitting(under_our_names(state, config), config, "MoH model")


def under_our_names(
    state: Mapping[str, Tensor], config: MoHViTConfig | MoHDiTConfig
) -> dict[str, Tensor]:
    """The weights of an official state dict of any size."""
    return {_ours(name, config): x for name, x in state.items()}


def to_official(
    state: Mapping[str, Tensor], config: MoHViTConfig | MoHDiTConfig
) -> dict[str, Tensor]:
    """The official state dict from ours; the inverse of `from_official`."""
    return {_theirs(name, config): x for name, x in state.items()}


def layer_from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of one of our attention layers from an official one.

    Example:
        >>> layer_from_official({"wg_0.weight": None})
        {'gate.to_groups.weight': None}
    """
    return {_replaced(name, _PARTS): x for name, x in state.items()}


def layer_to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `layer_from_official`."""
    return {_replaced(name, _BACK): x for name, x in state.items()}


def _ours(name: str, config: MoHViTConfig | MoHDiTConfig) -> str:
    name = _replaced(name, _PARTS)
    if isinstance(config, MoHDiTConfig):
        return re.sub(r"\bmlp\.fc([12])\.", lambda m: f"mlp.{2 * (int(m[1]) - 1)}.", name)
    for theirs, ours in (("patch_embed", "embed"), ("block", "blocks"), ("norm", "norm.norm")):
        name = re.sub(rf"^{theirs}(\d+)\.", lambda m, o=ours: f"stages.{int(m[1]) - 1}.{o}.", name)
    return name


def _theirs(name: str, config: MoHViTConfig | MoHDiTConfig) -> str:
    name = _replaced(name, _BACK)
    if isinstance(config, MoHDiTConfig):
        return re.sub(
            r"^(blocks\..*\bmlp)\.([02])\.", lambda m: f"{m[1]}.fc{int(m[2]) // 2 + 1}.", name
        )
    for theirs, ours in (("patch_embed", "embed"), ("block", "blocks"), ("norm", r"norm\.norm")):
        name = re.sub(
            rf"^stages\.(\d+)\.{ours}\.", lambda m, t=theirs: f"{t}{int(m[1]) + 1}.", name
        )
    return name


def _replaced(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
