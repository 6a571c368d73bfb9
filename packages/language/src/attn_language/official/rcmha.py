"""Checkpoints of hermansh-id/rcmha (`AutoregressiveModel`, or its attention alone)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..models.rcmha import RCMHAConfig
from .keys import count, renamed, reverse

ATTENTION = [
    ("query.0.linear.weight", "query.weight"),
    ("key.0.linear.weight", "key.weight"),
    ("value.0.linear.{p}", "value.{p}"),
    ("query.1.conv.{p}", "conv_q.{p}"),
    ("key.1.conv.{p}", "conv_k.{p}"),
    ("value.1.conv.{p}", "conv_v.{p}"),
    ("query.linear.weight", "query.weight"),  # without convolutions
    ("key.linear.weight", "key.weight"),
    ("value.linear.{p}", "value.{p}"),
    ("output.{p}", "output.{p}"),
    ("key_pos_embeddings", "distance"),
    ("key_pos_bias", "distance_bias"),
    ("query_pos_bias", "query_bias"),
]
MODEL = [
    ("src_embed.weight", "embed.tokens.weight"),
    ("transformer.layers.{i}.feed_forward.layer1.{p}", "blocks.{i}.feed_forward.up.{p}"),
    ("transformer.layers.{i}.feed_forward.layer2.{p}", "blocks.{i}.feed_forward.down.{p}"),
    ("transformer.layers.{i}.norm_self_attn.{p}", "blocks.{i}.norm1.{p}"),
    ("transformer.layers.{i}.norm_ff.{p}", "blocks.{i}.norm2.{p}"),
    ("transformer.norm.{p}", "norm.{p}"),
    ("generator.{p}", "head.{p}"),
    *(
        (f"transformer.layers.{{i}}.self_attn.{old}", f"blocks.{{i}}.mixer.{new}")
        for old, new in ATTENTION
    ),
]


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> RCMHAConfig:
    """Our configuration of a model, or of one attention.

    Args:
        config: with heads, which no weight tells; sizes are read off the weights.
        state: the official state dict.
    """
    prefix = "transformer.layers.0.self_attn." if "src_embed.weight" in state else ""
    table = state.get(f"{prefix}key_pos_embeddings")
    relative = table is not None
    common = {
        "heads": config["heads"],
        "conv": f"{prefix}query.1.conv.weight" in state,
        "relative": relative,
        "max_distance": len(table) // 2 if table is not None else config.get("P", 4096),
    }
    if not prefix:
        return RCMHAConfig(dim=state["output.weight"].shape[0], **common)
    vocab, dim = state["src_embed.weight"].shape
    return RCMHAConfig(
        vocab=vocab,
        dim=dim,
        depth=count(state, "transformer.layers.{i}.norm_ff.weight"),
        hidden=state["transformer.layers.0.feed_forward.layer1.weight"].shape[0],
        **common,
    )


def from_official(state: Mapping[str, Tensor], config: RCMHAConfig) -> dict[str, Tensor]:
    """Our state dict, of a model or of one attention."""
    table = MODEL if "src_embed.weight" in state else ATTENTION
    return {
        name: x[:, 0] if "conv_" in name and name.endswith("weight") else x
        for name, x in renamed(state, table).items()
    }


def to_official(state: Mapping[str, Tensor], config: RCMHAConfig) -> dict[str, Tensor]:
    """The official state dict."""
    table = reverse(MODEL if "embed.tokens.weight" in state else ATTENTION)
    if not config.conv:  # the maps stand alone, not first in a row
        table = [(ours, theirs.replace(".0.linear.", ".linear.")) for ours, theirs in table]
    return {
        name: x[:, None] if name.endswith("conv.weight") else x
        for name, x in renamed(state, table).items()
    }


def whole_tables(state: Mapping[str, Tensor], max_distance: int) -> dict[str, Tensor]:
    """Puts stored rows "name[first:last]" of the position tables at their place among zeros."""
    out = {}
    for name, x in state.items():
        whole, bracket, rows = name.partition("[")
        if bracket:
            first, last = map(int, rows.rstrip("]").split(":"))
            table = x.new_zeros(2 * max_distance, *x.shape[1:])
            table[first:last] = x
            out[whole] = table
        else:
            out[name] = torch.as_tensor(x)
    return out
