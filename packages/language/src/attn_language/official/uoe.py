"""Checkpoints of YujiaoYang-work/UoE (SMHA_v3 and U_MLP), and experts cut from dense layers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..models.uoe import UoEConfig
from .keys import renamed, require, reverse

ATTENTION = [
    ("switch_gate.w_gate.{p}", "mixer.router.gate.{p}"),
    ("W_q.{p}.0", "mixer.q.{p}"),
    ("W_kv.{p}.0", "mixer.kv.{p}"),
    ("ff.weight.0", "mixer.out.weight"),
    ("ff.bias", "mixer.out.bias"),
    ("layer_norm.{p}", "norm1.{p}"),
]
FEED_FORWARD = [
    ("switch.{p}", "feed_forward.router.gate.{p}"),  # experts chosen per text
    ("switch_gate.w_gate.{p}", "feed_forward.router.gate.{p}"),
    ("linear1.{p}.0", "feed_forward.up.{p}"),
    ("linear2.weight.0", "feed_forward.down.weight"),
    ("linear2.bias", "feed_forward.down.bias"),
    ("layer_norm.{p}", "norm2.{p}"),
]


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> UoEConfig:
    """Our configuration of a block that holds the official attention or feed-forward.

    Args:
        config: official names: n_head, d_model, pre_lnorm; d_inner, n_experts, topk.
        state: the official state dict.
    """
    norm = "none" if config.get("pre_lnorm") else "post"
    common = {"dim": config["d_model"], "routing": "official", "gate_scale": False, "norm": norm}
    if "W_q.weight.0" in state:
        per_token = config.get("topk", config["n_head"] // 2)
        return UoEConfig(heads=config["n_head"], heads_per_token=per_token, **common)
    if "switch.weight" in state:
        common |= {
            "per_text": "flattened", "context": state["switch.weight"].shape[1] // config["d_model"]
        }  # fmt: skip
    return UoEConfig(
        heads=1,
        experts=config["n_experts"],
        experts_per_token=config["topk"],
        hidden=config["d_inner"],
        **common,
    )


def from_official(state: Mapping[str, Tensor], config: UoEConfig) -> dict[str, Tensor]:
    """Those of our block's weights that the attention or the feed-forward has.

    The official feed-forward's `linear3` is never used and left out.
    """
    used = {name: x for name, x in state.items() if not name.startswith("linear3.")}
    is_attention = "W_q.weight.0" in used
    require(used, ("W_q.weight.0",) if is_attention else ("linear1.weight.0",))
    ours = renamed(used, ATTENTION if is_attention else FEED_FORWARD)
    if config.norm == "none":
        ours = {name: x for name, x in ours.items() if not name.startswith("norm")}
    return {name: x[:, 0] if x.dim() == 3 and "bias" in name else x for name, x in ours.items()}


def to_official(
    state: Mapping[str, Tensor], is_attention: bool, per_text: bool = False
) -> dict[str, Tensor]:
    """The official names of our block's weights, or of their gradients.

    Args:
        state: of our block.
        is_attention: whether those of its attention are wanted, or of its feed-forward.
        per_text: whether the feed-forward's experts are chosen per text.
    """
    table = reverse(ATTENTION if is_attention else FEED_FORWARD[0 if per_text else 1 :])
    parts = ("mixer.", "norm1.") if is_attention else ("feed_forward.", "norm2.")
    part = {name: x for name, x in state.items() if name.startswith(parts)}
    return {
        name: x[:, None] if name.endswith("bias.0") else x
        for name, x in renamed(part, table).items()
    }


def from_dense_feed_forward(
    up: Tensor, up_bias: Tensor, down: Tensor, down_bias: Tensor, experts: int
) -> dict[str, Tensor]:
    """A dense feed-forward's weights (as `nn.Linear` holds them), cut into experts.

    The first expert gets the whole output bias.
    """
    bias = torch.zeros(experts, len(down_bias), dtype=down_bias.dtype)
    bias[0] = down_bias
    return {
        "up.weight": torch.stack([w.T for w in up.chunk(experts)]),
        "up.bias": torch.stack(up_bias.chunk(experts)),
        "down.weight": torch.stack([w.T for w in down.chunk(experts, 1)]),
        "down.bias": bias,
    }


def from_dense_attention(
    qkv: Tensor, qkv_bias: Tensor, out: Tensor, out_bias: Tensor, heads: int
) -> dict[str, Tensor]:
    """A dense attention's weights (queries, keys, values in one matrix), cut into heads."""
    q, k, v = (torch.stack([w.T for w in part.chunk(heads)]) for part in qkv.chunk(3))
    bias_q, bias_k, bias_v = (part.unflatten(0, (heads, -1)) for part in qkv_bias.chunk(3))
    bias = torch.zeros(heads, len(out_bias), dtype=out_bias.dtype)
    bias[0] = out_bias
    return {
        "q.weight": q,
        "q.bias": bias_q,
        "kv.weight": torch.cat((k, v), 2),
        "kv.bias": torch.cat((bias_k, bias_v), 1),
        "out.weight": torch.stack([w.T for w in out.chunk(heads, 1)]),
        "out.bias": bias,
    }
