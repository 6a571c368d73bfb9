"""Weights in the names of the recorded DHA cases (no official code was published)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..models.dha import FusingAttention
from ..models.parts import Rope
from ..models.transformer import SelfAttention

NAMES = {
    "k_heads": "fuse_k.weight",
    "v_heads": "fuse_v.weight",
    "k_fusion": "fuse_k.coefficients",
    "v_fusion": "fuse_v.coefficients",
    "q.weight": "q",
    "o.weight": "out.weight",
}


def attention_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> FusingAttention:
    """The recorded attention in its fusion stage, its queries reading the shared heads.

    Args:
        config: with d, heads, head_dim, k_group, v_group.
        state: the recorded weights.
    """
    own = list(range(config["heads"]))
    attention = SelfAttention(
        config["d"], config["head_dim"], own, own, rope=Rope(config.get("base", 10000.0)),
        qkv_bias=False, out_bias=False,
    )  # fmt: skip
    fusing = FusingAttention(attention, config["k_group"], config["v_group"], True)
    with torch.no_grad():
        for theirs, ours in NAMES.items():
            parameter = fusing.get_parameter(ours)
            parameter.copy_(state[theirs].reshape(parameter.shape))
    return fusing


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The recorded names, of weights or of their gradients."""
    named = {theirs: state[ours] for theirs, ours in NAMES.items()}
    return named | {"q.weight": named["q.weight"].flatten(0, 1)}
