"""What the delta rule is: read, compare, correct, one token at a time."""

import torch
from torch import Tensor

from .._recurrence.call import RecurrenceCall


def run(call: RecurrenceCall) -> tuple[Tensor, Tensor]:
    """The recurrence by its definition."""
    state, out = call.initial_state(), []
    for t in range(call.q.shape[-2]):
        q, k, v = (x[..., t, :].to(call.wide) for x in (call.q, call.k, call.v))
        if call.decay is not None:
            state = call.decay[..., t, None, None] * state
        surprise = v - (k.unsqueeze(-2) @ state).squeeze(-2)
        if call.beta is not None:
            surprise = call.beta[..., t, None] * surprise
        state = state + k.unsqueeze(-1) * surprise.unsqueeze(-2)
        out.append(call.scale * (q.unsqueeze(-2) @ state).squeeze(-2))
    stacked = torch.stack(out, -2) if out else call.v.new_zeros(call.v.shape)
    return stacked.to(call.q.dtype), state
