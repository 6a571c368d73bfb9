"""Causal linear attention by chunks: matrix products inside a chunk, the state between chunks.

Cost for T tokens in chunks of C: T C (d + e) multiply-adds inside the chunks and 2 T d e for the
state, against 2 T d e for the stepwise form; the chunks run as GEMMs, the steps as rank-one
updates bound by reading and writing the d x e state at every token.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .call import RecurrenceCall

CHUNK = 64


class Chunks(NamedTuple):
    """Tokens laid out as (*batch, heads, chunks, size, dim), padded with tokens that do nothing.

    `log_decay` is the running sum of log(decay) inside each chunk, None without decay.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor | None
    log_decay: Tensor | None

    def masked(self, scores: Tensor, diagonal: int = 0) -> Tensor:
        """Keeps the keys up to `diagonal` past the query and lets earlier ones decay."""
        if self.log_decay is None:
            return scores.tril(diagonal)
        gap = self.log_decay.unsqueeze(-1) - self.log_decay.unsqueeze(-2)
        # Zeroing the gap first keeps exp finite where the mask drops it.
        return scores.tril(diagonal) * gap.tril().exp()

    def from_start(self, x: Tensor) -> Tensor:
        """Decays each token's row of `x` from the start of its chunk to the token."""
        return x if self.log_decay is None else x * self.log_decay.exp().unsqueeze(-1)

    def to_end(self, x: Tensor) -> Tensor:
        """Decays each token's row of `x` from the token to the end of its chunk."""
        if self.log_decay is None:
            return x
        return x * (self.log_decay[..., -1:] - self.log_decay).exp().unsqueeze(-1)

    def carry(self, state: Tensor, chunk: int) -> Tensor:
        """Decays the state over the given chunk."""
        if self.log_decay is None:
            return state
        return state * self.log_decay[..., chunk, -1, None, None].exp()


def split(call: RecurrenceCall, size: int = CHUNK) -> Chunks:
    """Lays the call out in chunks, in the dtype of the state; the scale goes into the queries."""
    size = min(size, call.q.shape[-2])
    pad = -call.q.shape[-2] % size

    def rows(x: Tensor) -> Tensor:
        x = x.to(call.wide)
        return (F.pad(x, (0, 0, 0, pad)) if pad else x).unflatten(-2, (-1, size))

    def gate(x: Tensor | None, fill: float) -> Tensor | None:
        if x is None:
            return None
        x = x.to(call.wide)
        return (F.pad(x, (0, pad), value=fill) if pad else x).unflatten(-1, (-1, size))

    decay = gate(call.decay, 1.0)
    return Chunks(
        call.scale * rows(call.q),
        rows(call.k),
        rows(call.v),
        gate(call.beta, 0.0),
        None if decay is None else decay.log().cumsum(-1),
    )


def merge(out: Tensor, call: RecurrenceCall) -> Tensor:
    """Puts the chunks' outputs back into one row of tokens, without the padding."""
    return out.flatten(-3, -2)[..., : call.q.shape[-2], :].to(call.q.dtype)


def run(call: RecurrenceCall) -> tuple[Tensor, Tensor]:
    """The recurrence, chunk by chunk."""
    c = split(call)
    k = c.k if c.beta is None else c.k * c.beta.unsqueeze(-1)
    written = c.to_end(k).transpose(-1, -2) @ c.v
    state, before = call.initial_state(), []
    for i in range(written.shape[-3]):
        before.append(state)
        state = c.carry(state, i) + written[..., i, :, :]
    inside = c.masked(c.q @ k.transpose(-1, -2)) @ c.v
    return merge(inside + c.from_start(c.q) @ torch.stack(before, -3), call), state


def refuses(call: RecurrenceCall) -> str | None:
    """It leaves single tokens to the step itself."""
    if call.q.shape[-2] < 2:
        return "fewer than two tokens: the step itself is shorter"
    return None
