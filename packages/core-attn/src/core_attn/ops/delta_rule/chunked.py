"""The delta rule by chunks: one triangular solve turns a chunk's corrections into a product.

Inside a chunk the corrections u solve (I + strict_tril(diag(beta) K K^T)) u = beta (v - K S), so
that u = U - W S with U, W from a single solve for all chunks at once; only the small products
with S run one chunk after the other.

Cost for T tokens in chunks of C: T C (2 d + 3/2 e) multiply-adds inside the chunks, 3 T d e for
the state, all as GEMMs; the stepwise form does 3 T d e as products with one row.
"""

import torch
from torch import Tensor

from ..linear_attention.call import RecurrenceCall
from ..linear_attention.chunked import merge, split


def run(call: RecurrenceCall) -> tuple[Tensor, Tensor]:
    """The recurrence, chunk by chunk."""
    c = split(call)
    # Without beta every padded token has a zero key, which corrects nothing.
    write = c.k if c.beta is None else c.k * c.beta.unsqueeze(-1)
    value = c.v if c.beta is None else c.v * c.beta.unsqueeze(-1)
    overlap = c.masked(write @ c.k.transpose(-1, -2), diagonal=-1)
    solved = torch.linalg.solve_triangular(
        overlap, torch.cat((value, c.from_start(write)), -1), upper=False, unitriangular=True
    )
    fresh, against = solved.split((value.shape[-1], write.shape[-1]), -1)
    scores = c.masked(c.q @ c.k.transpose(-1, -2))
    q, keys = c.from_start(c.q), c.to_end(c.k).transpose(-1, -2)
    state, out = call.initial_state(), []
    for i in range(q.shape[-3]):
        correction = fresh[..., i, :, :] - against[..., i, :, :] @ state
        out.append(q[..., i, :, :] @ state + scores[..., i, :, :] @ correction)
        state = c.carry(state, i) + keys[..., i, :, :] @ correction
    return merge(out, call), state


def refuses(call: RecurrenceCall) -> str | None:
    """It leaves single tokens to the step itself."""
    if call.q.shape[-2] < 2:
        return "fewer than two tokens: the step itself is shorter"
    return None
