"""What causal linear attention is: one state, one token at a time."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._normal import nothing
from .._recurrence.call import RecurrenceCall


def run(call: RecurrenceCall) -> tuple[Tensor, Tensor]:
    """The recurrence by its definition."""
    state, out, decay = call.initial_state(), [], call.factors()
    for t in range(call.q.shape[-2]):
        q, k, v = (x[..., t, :].to(call.wide) for x in (call.q, call.k, call.v))
        if decay is not None:
            state = decay[..., t, None, None] * state
        if call.beta is not None:
            k = call.beta[..., t, None] * k
        state = state + k.unsqueeze(-1) * v.unsqueeze(-2)
        out.append(call.scale * (q.unsqueeze(-2) @ state).squeeze(-2))
    if not out:
        return nothing(call.q, call.k, call.v), state
    return torch.stack(out, -2).to(call.q.dtype), state


class BidirectionalCall(NamedTuple):
    """Arguments of `bidirectional_linear_attention` after its checks."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float


def bidirectional(call: BidirectionalCall) -> Tensor:
    """Both products, in their cheaper order."""
    q, k, v, scale = call
    queries, keys, dim, v_dim = q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
    if queries * keys * (dim + v_dim) <= (queries + keys) * dim * v_dim:
        return scale * ((q @ k.transpose(-1, -2)) @ v)
    return scale * (q @ (k.transpose(-1, -2) @ v))
