"""Tokens in chunks: work inside a chunk is batched, only the state goes from one to the next."""

from typing import NamedTuple

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
