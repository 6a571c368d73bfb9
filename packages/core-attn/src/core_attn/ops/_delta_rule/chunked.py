"""The delta rule by chunks: one triangular inverse turns a chunk's corrections into products.

Inside a chunk the corrections u solve (I + strict_tril(diag(beta) K K^T)) u = beta (v - K S), so
that u = U - W S, and the chunk takes the state S to (decay - K^T W) S + K^T U. Only that last
product runs one chunk after the other; everything else is batched over the chunks.

Cost for T tokens in chunks of C: T C (2 d + 3/2 e) multiply-adds inside the chunks and
T d (d + 3 e + d e / C) for the state, all as GEMMs; the stepwise form does 3 T d e as products
with one row.
"""

import torch
from torch import Tensor

from .._recurrence.call import RecurrenceCall
from .._recurrence.chunks import CHUNK, merge, split


def run(call: RecurrenceCall) -> tuple[Tensor, Tensor]:
    """The recurrence, chunk by chunk."""
    # Half as many tokens as key dimensions balance the work inside the chunks and between them.
    c = split(call, min(max(16, call.q.shape[-1] // 2), CHUNK))
    # Without beta every padded token has a zero key, which corrects nothing.
    write = c.k if c.beta is None else c.k * c.beta.unsqueeze(-1)
    value = c.v if c.beta is None else c.v * c.beta.unsqueeze(-1)
    overlap = c.masked(write @ c.k.transpose(-1, -2), diagonal=-1)
    identity = torch.eye(overlap.shape[-1], dtype=overlap.dtype, device=overlap.device)
    inverse = torch.linalg.solve_triangular(
        overlap, identity.expand_as(overlap), upper=False, unitriangular=True
    )
    fresh, against = inverse @ value, inverse @ c.from_start(write)
    keys = c.to_end(c.k).transpose(-1, -2)
    gained, erased = keys @ fresh, keys @ against
    state, before = call.initial_state(), []
    for i in range(gained.shape[-3]):
        before.append(state)
        state = c.carry(state, i) + gained[..., i, :, :] - erased[..., i, :, :] @ state
    states = torch.stack(before, -3)
    scores = c.masked(c.q @ c.k.transpose(-1, -2))
    out = c.from_start(c.q) @ states + scores @ (fresh - against @ states)
    return merge(out, call), state
