"""Checkpoints of lucidrains/routing-transformer (`RoutingTransformerLM`)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..models.routing import RoutingConfig
from .keys import count, renamed, require, reverse

_OUTER = "routing_transformer."
_MEANS = "fn.global_attn.kmeans.means"
_UNSUPPORTED = (
    "reversible", "receives_context", "pkm_layers", "moe_layers", "weight_tie", "tie_embedding",
    "use_rezero", "use_scale_norm", "shift_tokens", "ff_activation", "return_embeddings",
)  # fmt: skip
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
        config: the arguments of the official constructor; those it leaves out are its defaults,
            but `causal`, which the weights tell.
        state: the official state dict.

    Raises:
        ValueError: keys are missing, or an option is one we do not have.
    """
    for option in _UNSUPPORTED:
        if config.get(option):
            raise ValueError(f"option {option} = {config[option]!r} is not supported")
    if config.get("local_attn_radius_blocks", 1) != 1:
        raise ValueError("only models whose local heads see one block back are supported")
    require(state, ("token_emb.weight", "out.weight"))
    vocab, narrow = state["token_emb.weight"].shape
    is_narrow = f"{_OUTER}project_in.weight" in state
    inner = f"{_OUTER}fn." if is_narrow else _OUTER
    dim = state[f"{inner}layers.layers.0.0.norm.weight"].shape[0]
    depth = count(state, f"{inner}layers.layers.{{i}}.0.norm.weight")
    heads, context = config.get("heads", 8), config["max_seq_len"]
    window = config.get("window_size", 64)
    local = config.get("n_local_attn_heads") or 0
    local = local if isinstance(local, int) else tuple(local)
    routed = [i for i in range(depth) if f"{inner}layers.layers.{i}.0.{_MEANS}" in state]
    first = f"{inner}layers.layers.{routed[0] if routed else 0}.0."
    wide, hidden = (
        state[f"{inner}layers.layers.0.1.fn.fn.{name}.weight"].shape[axis]
        for name, axis in (("w1", 0), ("w2", 1))
    )
    kept = state.get(f"{first}fn.global_attn.mem_key")
    slots = 0 if kept is None else kept.shape[2]
    shared_qk = f"{first}fn.to_k.weight" not in state
    if not config.get("causal", shared_qk or slots):  # what the official constructor makes of it
        raise ValueError("only causal models are supported")
    return RoutingConfig(
        vocab=vocab,
        context=context,
        dim=dim,
        depth=depth,
        heads=heads,
        head_dim=state[f"{first}fn.to_out.weight"].shape[1] // heads,
        local_heads=local,
        clusters=state[f"{first}{_MEANS}"].shape[1] if routed else context // window,
        window=window,
        local_window=config.get("local_attn_window_size") or window,
        style="lucidrains",
        shared_qk=shared_qk,
        memory_slots=slots,
        embedding_dim=narrow,
        hidden=hidden,
        gated=wide != hidden,
        commitment=config.get("kmeans_commitment", 1e-4),
        decay=config.get("kmeans_ema_decay", 0.999),
        mask_routing=False,
    )


def from_official(state: Mapping[str, Tensor], config: RoutingConfig) -> dict[str, Tensor]:
    """Our state dict; tables that are computed anew are left out."""
    computed = ("sinu_pos_emb.emb", "inv_freq")
    kept = {n: x for n, x in state.items() if x.numel() or ".mem_" in n}  # no map to zero heads
    kept = {n: x for n, x in kept.items() if not n.endswith(computed)}
    ours = renamed(kept, table(config))
    for name in list(ours):
        if name.endswith("centroids.means"):
            flag = name.removesuffix("means") + "initialized"
            ours.setdefault(flag, torch.tensor(True))
    return ours


def to_official(state: Mapping[str, Tensor], config: RoutingConfig) -> dict[str, Tensor]:
    """The official state dict, without the tables that are computed."""
    out = renamed(state, reverse(table(config)))
    for name in list(out):
        if name.endswith("fn.to_out.weight"):  # the official layers have maps to zero heads, too
            maps = ("to_q", "to_v") if config.shared_qk else ("to_q", "to_v", "to_k")
            for one in maps:
                empty = out[name].new_empty(0, config.dim)
                out.setdefault(name.replace("to_out", one), empty)
    return out
