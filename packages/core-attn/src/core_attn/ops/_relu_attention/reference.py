"""What ReLU attention is: plain torch, any dtype, differentiable any number of times."""

from typing import NamedTuple

from torch import Tensor


class ReluCall(NamedTuple):
    """Arguments of `relu_attention` after its checks; k and v have one head or that of q."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float


def run(call: ReluCall) -> Tensor:
    """Scores, rectified, times values; heads that share keys become more queries of one head."""
    q, k, v, scale = call
    heads, queries = q.shape[-3:-1]
    if k.shape[-3] == v.shape[-3] == 1:
        q = q.flatten(-3, -2).unsqueeze(-3)
    out = scale * ((q @ k.transpose(-1, -2)).relu() @ v)
    return out.reshape(*q.shape[:-3], heads, queries, v.shape[-1])
