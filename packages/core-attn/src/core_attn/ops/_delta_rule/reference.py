"""What the delta rule is: read, compare, correct, one token at a time."""

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
        surprise = v - (k.unsqueeze(-2) @ state).squeeze(-2)
        if call.beta is not None:
            surprise = call.beta[..., t, None] * surprise
        state = state + k.unsqueeze(-1) * surprise.unsqueeze(-2)
        out.append(call.scale * (q.unsqueeze(-2) @ state).squeeze(-2))
    if not out:
        return nothing(call.q, call.k, call.v), state
    return torch.stack(out, -2).to(call.q.dtype), state
