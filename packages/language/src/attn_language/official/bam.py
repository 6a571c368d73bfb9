"""Weights in the names of the recorded BAM blocks (no official code was published)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..models.bam import BAMConfig


def config_from(config: Mapping[str, Any]) -> BAMConfig:
    """Our configuration from the recorded one: d, heads, kv_heads, head_dim, experts, ff, kv."""
    return BAMConfig(
        dim=config["d"],
        depth=1,
        heads=config["heads"],
        kv_heads=config["kv_heads"],
        head_dim=config["head_dim"],
        hidden=config["ff"],
        experts=config["experts"],
        kv=config["kv"],
        balance=config["alpha"],
        router_z=config["beta"],
        top_k=config.get("top_k", 1),
        rope_base=config.get("base", 10000.0),
    )


def from_official(state: Mapping[str, Tensor], config: BAMConfig) -> dict[str, Tensor]:
    """Our state dict of one block."""
    experts = range(config.experts)

    def stacked(part: str, name: str) -> list[Tensor]:
        if f"{part}.{name}.weight" in state:
            return [state[f"{part}.{name}.weight"]]
        return [state[f"{part}.{expert}.{name}.weight"] for expert in experts]

    gate, up, down = (torch.stack(stacked("ffn", name)) for name in ("gate", "up", "down"))
    return {
        "norm.weight": state["norm.weight"],
        "mixer.qkv.weight": torch.cat([w for name in "qkv" for w in stacked("attn", name)]),
        "mixer.out.weight": torch.cat(stacked("attn", "o"), 1),
        "mixer.router.weight": state["router_attn.weight"],
        "feed_forward.router.weight": state["router_ffn.weight"],
        "feed_forward.gate_up": torch.cat((gate, up), 1),
        "feed_forward.down": down,
    }


def to_official(state: Mapping[str, Tensor], config: BAMConfig) -> dict[str, Tensor]:
    """The recorded names, of one block's weights or of their gradients."""
    n, head_dim = config.experts, config.features_per_head
    q_dim, kv_dim = config.heads * head_dim, (config.kv_heads or config.heads) * head_dim
    shared = config.kv == "shared"
    stored = 1 if shared else n
    q, k, v = state["mixer.qkv.weight"].split([n * q_dim, stored * kv_dim, stored * kv_dim])
    gate, up = state["feed_forward.gate_up"].chunk(2, 1)
    out = {
        "norm.weight": state["norm.weight"],
        "router_attn.weight": state["mixer.router.weight"],
        "router_ffn.weight": state["feed_forward.router.weight"],
    }
    parts = {"q": q.chunk(n), "o": state["mixer.out.weight"].chunk(n, 1)}
    if shared:
        out |= {"attn.k.weight": k, "attn.v.weight": v}
    else:
        parts |= {"k": k.chunk(n), "v": v.chunk(n)}
    for expert in range(n):
        out |= {f"attn.{expert}.{name}.weight": x[expert] for name, x in parts.items()}
        feed = {"gate": gate, "up": up, "down": state["feed_forward.down"]}
        out |= {f"ffn.{expert}.{name}.weight": x[expert] for name, x in feed.items()}
    return out
