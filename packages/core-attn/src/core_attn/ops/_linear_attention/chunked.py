"""Causal linear attention by chunks: matrix products inside a chunk, the state between chunks.

Cost for T tokens in chunks of C: T C (d + e) multiply-adds inside the chunks and 2 T d e for the
state, against 2 T d e for the stepwise form; the chunks run as GEMMs, the steps as rank-one
updates bound by reading and writing the d x e state at every token.
"""

import torch
from torch import Tensor

from .._recurrence.call import RecurrenceCall
from .._recurrence.chunks import Chunks, merge, split, states

ALL_AT_ONCE = 128  # chunks whose states are found by one product; it grows with their square


def run(call: RecurrenceCall) -> tuple[Tensor, Tensor]:
    """The recurrence, chunk by chunk."""
    c = split(call)
    k = c.k if c.beta is None else c.k * c.beta.unsqueeze(-1)
    written = c.to_end(k).transpose(-1, -2) @ c.v
    found = _states(c, written, call.initial_state())
    inside = c.masked(c.q @ k.transpose(-1, -2)) @ c.v
    return merge(inside + c.from_start(c.q) @ found[:, :, :-1], call), found[:, :, -1]


def _states(c: Chunks, written: Tensor, state: Tensor) -> Tensor:
    """The state before each chunk and after the last."""
    if c.start is None or torch.compiler.is_compiling() or written.shape[2] <= ALL_AT_ONCE:
        return states(written, c.whole(), state)
    before = [state]
    for i in range(written.shape[2]):
        before.append(c.carry(before[-1], i) + written[:, :, i])
    return torch.stack(before, 2)
