"""Checkpoints of lucidrains/routing-transformer (`RoutingTransformerLM`)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..models.routing import RoutingConfig
from .keys import count, renamed, require, reverse

_OUTER = "routing_transformer."
_BLOCK = [
    ("0.norm.{p}", "norm1.{p}"),
    ("0.fn.local_to_qkv.{p}", "mixer.local_qkv.{p}"),
    ("0.fn.global_attn.kmeans.means", "mixer.routed.centroids.means"),
    ("0.fn.global_attn.kmeans.initted", "mixer.routed.centroids.initialized"),
    ("0.fn.global_attn.mem_key", "mixer.routed.slots_k"),
    ("0.fn.global_attn.mem_value", "mixer.routed.slots_v"),
    ("0.fn.to_q.weight", "mixer.query.weight"),
    ("0.fn.to_k.weight", "mixer.key.weight"),
    ("0.fn.to_v.weight", "mixer.value.weight"),
    ("0.fn.to_out.weight", "mixer.output.weight"),
    ("1.norm.{p}", "norm2.{p}"),
]


def table(config: RoutingConfig) -> list[tuple[str, str]]:
    """Official names and ours."""
    is_narrow = (config.embedding_dim or config.dim) != config.dim
    inner = f"{_OUTER}fn." if is_narrow else _OUTER
    up = "gate_up" if config.gated else "up"
    block = [
        *_BLOCK,
        ("1.fn.fn.w1.{p}", f"feed_forward.{up}.{{p}}"),
        ("1.fn.fn.w2.{p}", "feed_forward.down.{p}"),
    ]
    rows = [(f"{inner}layers.layers.{{i}}.{old}", f"blocks.{{i}}.{new}") for old, new in block]
    if not is_narrow:
        ends = [("token_emb.weight", "embed.tokens.weight"), ("norm.{p}", "norm.{p}")]
    else:
        ends = [
            ("token_emb.weight", "embed.embedding.tokens.weight"),
            (f"{_OUTER}project_in.{{p}}", "embed.project.{p}"),
            (f"{_OUTER}project_out.{{p}}", "norm.0.{p}"),
            ("norm.{p}", "norm.1.{p}"),
        ]
    return [*ends, *rows, ("out.{p}", "head.{p}")]


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> RoutingConfig:
    """Our configuration.

    Args:
        config: official names: heads, max_seq_len, window_size, n_local_attn_heads,
            local_attn_window_size, ff_glu.
        state: the official state dict.

    Raises:
        ValueError: keys are missing, or an option is one we do not have.
    """
    require(state, ("token_emb.weight", "out.weight"))
    for option in ("reversible", "receives_context", "pkm_layers", "weight_tie"):
        if config.get(option):
            raise ValueError(f"option {option} = {config[option]!r} is not supported")
    vocab, narrow = state["token_emb.weight"].shape
    is_narrow = f"{_OUTER}project_in.weight" in state
    inner = f"{_OUTER}fn." if is_narrow else _OUTER
    dim = state[f"{inner}layers.layers.0.0.norm.weight"].shape[0]
    heads = config["heads"]
    window, context = config["window_size"], config["max_seq_len"]
    first = f"{inner}layers.layers.0.0.fn.global_attn."
    means = state.get(f"{first}kmeans.means")
    gated = bool(config.get("ff_glu", False))
    wide = state[f"{inner}layers.layers.0.1.fn.fn.w1.weight"].shape[0]
    slots = state.get(f"{first}mem_key")
    return RoutingConfig(
        vocab=vocab,
        context=context,
        dim=dim,
        depth=count(state, f"{inner}layers.layers.{{i}}.0.norm.weight"),
        heads=heads,
        head_dim=config.get("dim_head") or dim // heads,
        local_heads=config.get("n_local_attn_heads") or 0,
        clusters=context // window if means is None else means.shape[1],
        window=window,
        local_window=config.get("local_attn_window_size") or window // 2,
        style="lucidrains",
        shared_qk=f"{inner}layers.layers.0.0.fn.to_k.weight" not in state,
        memory_slots=0 if slots is None else slots.shape[2],
        embedding_dim=narrow,
        hidden=wide // 2 if gated else wide,
        gated=gated,
        commitment=config.get("kmeans_commitment", 1e-4),
        decay=config.get("kmeans_ema_decay", 0.999),
        mask_routing=False,
    )


def from_official(state: Mapping[str, Tensor], config: RoutingConfig) -> dict[str, Tensor]:
    """Our state dict; tables that are computed anew are left out."""
    kept = {n: x for n, x in state.items() if not n.endswith(("sinu_pos_emb.emb", "inv_freq"))}
    ours = renamed(kept, table(config))
    for name in list(ours):
        if name.endswith("centroids.means"):
            flag = name.removesuffix("means") + "initialized"
            ours.setdefault(flag, torch.tensor(True))
    return ours


def to_official(state: Mapping[str, Tensor], config: RoutingConfig) -> dict[str, Tensor]:
    """The official state dict, without the tables that are computed."""
    return renamed(state, reverse(table(config)))
