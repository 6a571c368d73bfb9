"""Tokens in chunks: work inside a chunk is batched, only the state goes from one to the next."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .call import RecurrenceCall
from .decay import log_spans, products, spans

CHUNK = 64


class Chunks(NamedTuple):
    """Tokens laid out as (batch, heads, chunks, size, dim), padded with tokens that do nothing.

    `within` (batch, heads, chunks, size, size) is how much of what token j wrote is left when token
    i has decayed it, `start` (batch, heads, chunks, size) how much of the state at the chunk's
    start; both are None without decay.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor | None
    within: Tensor | None
    start: Tensor | None

    def masked(self, scores: Tensor, diagonal: int = 0) -> Tensor:
        """Keeps the keys up to `diagonal` past the query and lets earlier ones decay."""
        scores = scores.tril(diagonal)
        return scores if self.within is None else scores * self.within

    def from_start(self, x: Tensor) -> Tensor:
        """Decays each token's row of `x` from the start of its chunk to the token."""
        return x if self.start is None else x * self.start.unsqueeze(-1)

    def to_end(self, x: Tensor) -> Tensor:
        """Decays each token's row of `x` from the token to the end of its chunk."""
        return x if self.within is None else x * self.within[..., -1, :].unsqueeze(-1)

    def carry(self, state: Tensor, chunk: int) -> Tensor:
        """Decays the state over the given chunk."""
        return state if self.start is None else state * self.start[..., chunk, -1, None, None]

    def whole(self) -> Tensor | None:
        """The decay over each chunk, (batch, heads, chunks)."""
        return None if self.start is None else self.start[..., -1]


def refuses(call: RecurrenceCall) -> str | None:
    """A chunk has tokens."""
    return "there are no tokens" if call.q.shape[-2] == 0 else None


def reluctant(call: RecurrenceCall) -> str | None:
    """It leaves single tokens to the step itself."""
    if call.q.shape[-2] < 2:
        return "fewer than two tokens: the step itself is shorter"
    return None


def split(call: RecurrenceCall, size: int = CHUNK) -> Chunks:
    """Lays the call out in chunks, in the dtype of the state; the scale goes into the queries."""
    tokens = call.q.shape[-2]
    size = min(size, tokens)
    pad = -tokens % size

    def rows(x: Tensor) -> Tensor:
        return F.pad(x.to(call.wide), (0, 0, 0, pad)).unflatten(-2, (-1, size))

    def gate(x: Tensor | None, fill: float) -> Tensor | None:
        return None if x is None else F.pad(x, (0, pad), value=fill).unflatten(-1, (-1, size))

    within = start = None
    if (decay := gate(call.decay, 1.0)) is not None:
        within, start = spans(decay), products(decay)
    if (log_decay := gate(call.log_decay, 0.0)) is not None:
        within, start = log_spans(log_decay), log_decay.cumsum(-1).exp()
    return Chunks(
        call.scale * rows(call.q), rows(call.k), rows(call.v), gate(call.beta, 0.0), within, start
    )


def merge(out: Tensor, call: RecurrenceCall) -> Tensor:
    """Puts the chunks' outputs back into one row of tokens, without the padding."""
    return out.flatten(-3, -2)[..., : call.q.shape[-2], :].to(call.q.dtype)


def states(written: Tensor, whole: Tensor | None, initial: Tensor) -> Tensor:
    """The state before each chunk and after the last, (batch, heads, chunks + 1, dim, v_dim).

    All at once, so that a graph does not depend on the number of chunks.

    Args:
        written: what each chunk adds, (batch, heads, chunks, dim, v_dim).
        whole: the decay over each chunk, None for none.
        initial: the state before the first.
    """
    added = torch.cat([initial.unsqueeze(2), written], 2)
    if whole is None:
        return added.cumsum(2)
    left = spans(F.pad(whole, (1, 0), value=1.0))
    return (left @ added.flatten(-2)).unflatten(-1, added.shape[-2:])
