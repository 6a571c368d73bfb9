"""ViT and DeiT checkpoints in the layout of timm and facebookresearch/deit."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.vision_transformer import VisionTransformerConfig

_FIELDS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "in_chans": "channels",
    "num_classes": "classes",
    "embed_dim": "dim",
    "depth": "depth",
    "num_heads": "heads",
    "mlp_ratio": "mlp_ratio",
    "qkv_bias": "qkv_bias",
    "init_values": "layer_scale",
    "norm_eps": "norm_eps",
}


def convert_config(
    config: Mapping[str, Any], params: Mapping[str, Tensor]
) -> VisionTransformerConfig:
    """Our configuration for the arguments and the weights of an official model.

    Args:
        config: arguments of `timm.models.vision_transformer.VisionTransformer`.
        params: its state dict, which tells whether it is distilled and scales its layers.

    Raises:
        ValueError: an argument has no counterpart here.

    Example:
        >>> convert_config({"img_size": 32, "patch_size": 8}, {}).grid
        (4, 4)
    """
    unknown = config.keys() - _FIELDS
    if unknown:
        raise ValueError(f"no counterpart for {sorted(unknown)}; known: {', '.join(_FIELDS)}")
    ours = {_FIELDS[name]: value for name, value in config.items()}
    if "blocks.0.ls1.gamma" in params:
        ours.setdefault("layer_scale", 1e-5)
    return VisionTransformerConfig(**ours, distilled="dist_token" in params)


def convert(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from an official one.

    The names agree; what official training runs wrap around them is removed: the file's "model"
    entry and the "module." of data parallelism.

    Args:
        params: an official state dict, or the checkpoint that holds it under "model".

    Raises:
        ValueError: it is no ViT: a name is missing.
    """
    inner = params.get("model", params)
    if not isinstance(inner, Mapping):
        raise ValueError(f"the entry 'model' must hold a state dict, got {type(inner).__name__}")
    ours = {name.removeprefix("module."): value for name, value in inner.items()}
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"):
        if name not in ours:
            raise ValueError(f"not a ViT state dict: it has no {name!r}")
    return ours


def revert(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official state dict from ours; the inverse of `convert`."""
    return dict(params)
