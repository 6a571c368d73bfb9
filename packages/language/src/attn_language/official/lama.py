"""Checkpoints of JohnGiorgi/compact-multi-head-self-attention-pytorch (`LAMAEncoder`)."""

from collections.abc import Mapping

from torch import Tensor

from .keys import renamed, reverse

TABLE = [("_attention._p", "p"), ("_attention._q", "q")]
PROJECTION = "projection_layer."


def from_official(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state dicts of our `LowRankPooling` and of the projection after it (may be empty)."""
    pooling = {name: x for name, x in state.items() if not name.startswith(PROJECTION)}
    projection = {n.removeprefix(PROJECTION): x for n, x in state.items() if n not in pooling}
    return renamed(pooling, TABLE), projection


def to_official(
    pooling: Mapping[str, Tensor], projection: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The official state dict."""
    named = {PROJECTION + name: tensor for name, tensor in projection.items()}
    return renamed(pooling, reverse(TABLE)) | named
