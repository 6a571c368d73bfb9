"""Halo attention of timm and halonet-pytorch, and HaloNets in timm's layout."""

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..models.halo_attention import HaloAttention
from ..models.halonet import HaloNetConfig
from ._fields import fitting, renamed

_TIMM = {
    "dim": "dim", "num_heads": "heads", "block_size": "block", "halo_size": "halo",
    "stride": "stride", "dim_out": "out_dim", "dim_head": "head_dim", "qk_ratio": "qk_ratio",
    "qkv_bias": "qkv_bias", "avg_down": "avg_down", "scale_pos_embed": "scale_positions",
}  # fmt: skip
_MASKED = {
    "dim": "dim", "heads": "heads", "dim_head": "head_dim", "block_size": "block",
    "halo_size": "halo",
}  # fmt: skip
_NET = {
    "img_size": "image_size", "num_classes": "classes", "block_size": "block",
    "halo_size": "halo", "num_heads": "heads", "act": "activation", "stem_chs": "stem_dim",
    "qkv_bias": "qkv_bias", "avg_down": "avg_down", "scale_pos_embed": "scale_positions",
    "dim_head": "head_dim", "qk_ratio": "qk_ratio", "drop_path_rate": "drop_path",
    "in_chans": "channels", "rd_ratio": "reduction", "linear_out": "linear_out",
}  # fmt: skip


def layer_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> HaloAttention:
    """The layer of timm's HaloAttn or halonet-pytorch's HaloAttention, with its weights.

    Args:
        config: arguments of the constructor; sizes of the map (H, W) are ignored.
        state: its state dict, which tells the two apart.

    Raises:
        ValueError: an argument has no counterpart, or weights are missing or of another shape.

    Example:
        >>> from attn_vision.models.halo_attention import HaloAttention
        >>> official = layer_to(HaloAttention(16, 2, block=4, halo=1))
        >>> layer_from({"dim": 16, "num_heads": 2, "block_size": 4, "halo_size": 1}, official).halo
        1
    """
    config = {name: x for name, x in config.items() if name not in ("H", "W", "feat_size")}
    if "to_q.weight" in state:
        ours: dict[str, Any] = {"heads": 8, "head_dim": 64} | renamed(config, _MASKED)
        inner = ours["heads"] * ours["head_dim"]
        layer = HaloAttention(
            **ours, out_dim=inner, scale_positions=True, mask_padding=True, project=True
        )
    else:
        layer = HaloAttention(**renamed(config, _TIMM))
    weights = _layer_weights(state, layer.num_heads)
    want = {name: x.shape for name, x in layer.state_dict().items()}
    have = {name: x.shape for name, x in weights.items()}
    if want != have:
        wrong = sorted(name for name in want | have if want.get(name) != have.get(name))
        raise ValueError(f"not the weights of this halo attention: {', '.join(wrong[:3])}")
    layer.load_state_dict(weights)
    return layer


def layer_to(layer: HaloAttention) -> dict[str, Tensor]:
    """The weights of a layer under the names of the code that it follows.

    Those of timm's HaloAttn, or of halonet-pytorch's HaloAttention where it projects its heads.
    """
    return _official_layer(layer.state_dict(), layer.num_heads)


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> HaloNetConfig:
    """Our configuration for the arguments and the weights of a net in timm's layout.

    Kinds of blocks, widths and stem are read off the weights.

    Args:
        config: `blocks` with a row (type, depth, channels, stride, bottleneck ratio) per stage,
            `stem` in words (a "maxpool" in it or none), and arguments of the attention.
        state: the official state dict.

    Raises:
        ValueError: an argument has no counterpart, or the net has parts that are not here.
    """
    rest = {name: x for name, x in config.items() if name not in ("blocks", "block_fields", "stem")}
    if "blocks" not in config:
        raise ValueError("config needs 'blocks', a row for each stage")
    rows = config["blocks"]
    depths = tuple(int(row[1]) for row in rows)
    foreign = sorted(
        name for name in state
        if name.startswith("stages") and any(f".{x}." in name for x in ("conv2b_kxk", "attn_last"))
    )  # fmt: skip
    if foreign:
        raise ValueError(f"no counterpart for blocks with {foreign[0]}")

    def rows_of(stage: int, block: int, layer: str) -> int:
        name = f"stages.{stage}.{block}.{layer}.conv.weight"
        if name not in state:
            raise ValueError(f"not a HaloNet in timm's layout: it has no {name!r}")
        return state[name].shape[0]

    def kind(stage: int, block: int) -> str:
        name = f"stages.{stage}.{block}.self_attn."
        return "h" if f"{name}q.weight" in state else "b" if f"{name}qkv.weight" in state else "c"

    kinds = tuple("".join(kind(s, b) for b in range(depth)) for s, depth in enumerate(depths))
    entering = [
        state[f"stages.{s}.{b}.conv1_1x1.conv.weight"].shape[:2]
        for s, depth in enumerate(depths) for b in range(depth)
        if f"stages.{s}.{b}.conv1_1x1.conv.weight" in state
    ]  # fmt: skip
    expansions = {within / channels for within, channels in entering}
    widths = tuple(rows_of(s, 0, "conv1_1x1") for s in range(len(depths)))
    convolution = [(name, x) for name, x in state.items() if name.endswith("conv2_kxk.conv.weight")]
    narrow = [x.shape[1] for _, x in convolution if x.shape[1] != x.shape[0]]
    convolutions = [x for name, x in state.items() if name.startswith("stem") and x.dim() == 4]
    if not convolutions:
        raise ValueError("not a HaloNet in timm's layout: it has no stem")
    first = convolutions[0]
    stem = (
        "7x7" if first.shape[-1] == 7 else "tiered" if "stem.conv2.conv.weight" in state else "3x3"
    )
    se = "se" if any(".attn.fc1." in name for name in state) else ""
    if any(name.endswith(".attn.conv.weight") for name in state):
        se = "eca"
    ours: dict[str, Any] = {
        "dims": tuple(rows_of(s, 0, "conv3_1x1") for s in range(len(depths))),
        "widths": widths,
        "expansion": expansions.pop() if len(expansions) == 1 and len(set(entering)) > 1 else 0.0,
        "shortcuts": any(".shortcut." in name for name in state),
        "depths": depths,
        "kinds": kinds,
        "strides": tuple(int(row[3]) for row in rows),
        "stem": stem,
        "stem_pool": "maxpool" in str(config.get("stem", "")),
        "channels": first.shape[1],
        "stem_dim": convolutions[-1].shape[0],
        "group_width": narrow[0] if narrow else 0,
        "channel_attention": se,
        "final_dim": _rows(state, "final_conv.conv.weight"),
        "classes": _rows(state, "head.fc.weight"),
    }
    return HaloNetConfig(**(ours | renamed(rest, _NET)))


def from_official(state: Mapping[str, Tensor], config: HaloNetConfig) -> dict[str, Tensor]:
    """Our state dict from one in timm's layout.

    Raises:
        ValueError: it is not of this model; the first names that differ are listed.
    """
    return fitting(under_our_names(state, config), config, "HaloNet")


def under_our_names(state: Mapping[str, Tensor], config: HaloNetConfig) -> dict[str, Tensor]:
    """The weights of a state dict in timm's layout, of any size."""
    ours = {}
    for name, x in state.items():
        head, _, rest = name.partition(".")
        if head == "stem":
            rest = rest if rest.startswith("conv1.") or rest[4:5].isdigit() else f"conv1.{rest}"
            ours[f"stages.0.embed.{rest}"] = x
        elif head == "stages":
            stage, _, rest = rest.partition(".")
            if ".self_attn." in rest:
                continue
            ours[f"stages.{stage}.blocks.{rest}"] = x
        elif head == "final_conv":
            ours[f"stages.{len(config.depths) - 1}.norm.{rest}"] = x
        elif name.startswith("head.fc."):
            ours[f"head.{name.removeprefix('head.fc.')}"] = x
        else:
            ours[name] = x
    for stage, block, prefix in _attentions(config):
        weights = _under(state, f"stages.{stage}.{block}.self_attn.")
        heads = config.heads if isinstance(config.heads, int) else config.heads[stage]
        ours |= {prefix + name: x for name, x in _layer_weights(weights, heads).items()}
    return ours


def to_official(state: Mapping[str, Tensor], config: HaloNetConfig) -> dict[str, Tensor]:
    """The state dict in timm's layout from ours; the inverse of `from_official`."""
    theirs, last = {}, f"stages.{len(config.depths) - 1}.norm."
    alone = config.stem != "tiered" and not config.stem_pool  # timm then has no container
    for name, x in state.items():
        if ".self_attn." in name:
            continue
        name = name.replace("stages.0.embed.", "stem.").replace(last, "final_conv.")
        name = name.replace("stem.conv1.", "stem.") if alone else name
        theirs[name.replace(".blocks.", ".").replace("head.", "head.fc.")] = x
    for stage, block, prefix in _attentions(config):
        whole = config.kinds_of(stage)[block] == "b"
        heads = config.heads if isinstance(config.heads, int) else config.heads[stage]
        weights = _official_layer(_under(state, prefix), heads, whole)
        theirs |= {f"stages.{stage}.{block}.self_attn.{name}": x for name, x in weights.items()}
    return theirs


def _attentions(config: HaloNetConfig):
    for stage in range(len(config.depths)):
        for block, kind in enumerate(config.kinds_of(stage)):
            if kind != "c":
                yield stage, block, f"stages.{stage}.blocks.{block}.self_attn."


def _layer_weights(state: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Our weights of one layer, from either layout."""
    names = {
        "pos_embed.height_rel": "height", "pos_embed.width_rel": "width", "to_q.weight": "q.weight",
        "rel_pos_emb.rel_height": "height", "rel_pos_emb.rel_width": "width",
        "to_out.weight": "proj.weight", "to_out.bias": "proj.bias",
    }  # fmt: skip
    ours, keys = {}, heads * next((x.shape[1] for n, x in state.items() if "height_rel" in n), 0)
    for name, x in state.items():
        if name in ("qkv.weight", "qkv.bias"):  # all queries, all keys, all values
            x = x.flatten(1) if x.dim() == 4 else x
            ours[name.replace("qkv", "q")] = x[:keys]
            by_head = [
                part.unflatten(0, (heads, -1)) for part in (x[keys : 2 * keys], x[2 * keys :])
            ]
            ours[name.replace("qkv", "kv")] = torch.cat(by_head, 1).flatten(0, 1)
        elif name == "to_kv.weight":  # all keys, then all values
            x = rearrange(x, "(n h d) c -> (h n d) c", n=2, h=heads)
            ours["kv.weight"] = x
        else:
            ours[names.get(name, name)] = x.flatten(1) if x.dim() == 4 else x
    return ours


def _official_layer(
    state: Mapping[str, Tensor], heads: int, whole: bool = False
) -> dict[str, Tensor]:
    if "proj.weight" in state:
        names = {
            "height": "rel_pos_emb.rel_height", "width": "rel_pos_emb.rel_width",
            "q.weight": "to_q.weight", "proj.weight": "to_out.weight", "proj.bias": "to_out.bias",
        }  # fmt: skip
        kv = rearrange(state["kv.weight"], "(h n d) c -> (n h d) c", n=2, h=heads)
        rest = {names[name]: x for name, x in state.items() if name in names}
        return rest | {"to_kv.weight": kv}
    names = {"height": "pos_embed.height_rel", "width": "pos_embed.width_rel"}
    if whole:  # timm's BottleneckAttn has one projection
        state, dim = dict(state), state["height"].shape[1]
        for kind in ("weight", "bias"):
            if f"q.{kind}" in state:
                kv = state.pop(f"kv.{kind}").unflatten(0, (heads, -1))
                parts = (
                    state.pop(f"q.{kind}"),
                    *(x.flatten(0, 1) for x in (kv[:, :dim], kv[:, dim:])),
                )
                state[f"qkv.{kind}"] = torch.cat(parts)
    return {
        names.get(name, name): x[:, :, None, None] if name.endswith("weight") else x
        for name, x in state.items()
    }


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}


def _rows(state: Mapping[str, Tensor], name: str) -> int:
    return state[name].shape[0] if name in state else 0
