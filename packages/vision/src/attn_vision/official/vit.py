"""ViT and DeiT checkpoints in the layout of timm and facebookresearch/deit."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.vision_transformer import VisionTransformerConfig
from ._fields import fitting, renamed

FIELDS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "in_chans": "channels",
    "num_classes": "classes",
    "embed_dim": "dim",
    "depth": "depth",
    "num_heads": "heads",
    "mlp_ratio": "mlp_ratio",
    "qkv_bias": "qkv_bias",
    "norm_eps": "norm_eps",
    "drop_rate": "dropout",
    "attn_drop_rate": "attention_dropout",
    "drop_path_rate": "drop_path",
}
_TIMM = {
    "init_values": "layer_scale",
    "qk_norm": "qk_norm",
    "class_token": "class_token",
    "reg_tokens": "registers",
    "pre_norm": "pre_norm",
    "fc_norm": "head_norm",
    "global_pool": "pool",
    "representation_size": "representation",
}
_ONLY = {
    "no_embed_class": (True, False),
    "pos_embed": ("learn", "none", ""),
    "norm_layer": (None,),
    "act_layer": (None, "gelu"),
    "proj_bias": (True,),
    "final_norm": (True,),
    "scale_attn_norm": (False,),
    "scale_mlp_norm": (False,),
    "pool_include_prefix": (False,),
    "pos_drop_rate": (0, 0.0),
    "patch_drop_rate": (0, 0.0),
    "proj_drop_rate": (0, 0.0),
    "dynamic_img_size": (True, False),
    "dynamic_img_pad": (False,),
    "distilled": (True, False),
    "hybrid_backbone": (None,),
}
_POOLS = {"token": "class", "avg": "mean", "max": "max", "avgmax": "mean_max", "map": "map"}


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> VisionTransformerConfig:
    """Our configuration for the arguments and the weights of an official model.

    Args:
        config: arguments of `timm.models.vision_transformer.VisionTransformer`; `norm_eps` stands
            for the epsilon of its `norm_layer`, 1e-6 by default (1e-5 in timm's CLIP models).
        state: its state dict, which tells what tokens, norms and scales it has.

    Raises:
        ValueError: an argument has no counterpart here.

    Example:
        >>> config_from({"img_size": 32, "patch_size": 8, "global_pool": "avg"}, {}).head_norm
        True
    """
    ours = renamed(config, FIELDS | _TIMM, _ONLY)
    pool = ours.get("pool", "token")
    if pool not in _POOLS:
        raise ValueError(f"no counterpart for global_pool={pool!r}; known: {', '.join(_POOLS)}")
    ours["pool"] = _POOLS[pool]
    if ours.get("head_norm") is None:
        ours["head_norm"] = pool not in ("token", "map")
    if config.get("no_embed_class"):
        ours["prefix_positions"] = False
    ours["positions"] = config.get("pos_embed", "learn") == "learn"
    ours["representation"] = ours.get("representation") or 0
    if state:
        ours["representation"] = len(state.get("pre_logits.fc.bias", ()))
        ours["class_token"], ours["distilled"] = "cls_token" in state, "dist_token" in state
        ours["registers"] = state["reg_token"].shape[1] if "reg_token" in state else 0
        ours["pre_norm"] = "norm_pre.weight" in state
        ours["head_norm"] = "fc_norm.weight" in state
        ours["qk_norm"] = "blocks.0.attn.q_norm.weight" in state
        if "blocks.0.ls1.gamma" not in state:
            ours["layer_scale"] = None
        elif ours.get("layer_scale") is None:
            ours["layer_scale"] = 1e-5
    return VisionTransformerConfig(**ours)


def from_official(
    state: Mapping[str, Tensor], config: VisionTransformerConfig
) -> dict[str, Tensor]:
    """Our state dict from an official one; the names agree.

    Raises:
        ValueError: it is not of this model; the first names that differ are listed.
    """
    return fitting(state, config, "ViT")


def to_official(state: Mapping[str, Tensor], config: VisionTransformerConfig) -> dict[str, Tensor]:
    """The official state dict from ours; the inverse of `from_official`."""
    return dict(state)
