"""The arguments of short_attention: as they are given, and checked in one layout."""

from collections.abc import Callable
from typing import NamedTuple, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FLOATS = ("q", "k", "v", "bias", "head_gate")


class ShortOptions(TypedDict, total=False):
    """What `short_attention` takes besides queries, keys and values; all may be left out.

    Attributes:
        bias: added to the scores, broadcastable to (*batch, heads, queries, keys), packed to
            (problems, heads, T, T) with T at least the tokens of the longest problem; so
            (heads, T, T) is shared by all problems. -inf forbids.
        mask: True where a query may see a key, broadcastable like `bias`.
        offsets: (problems + 1) integers from 0 to total that never decrease; problem p is made of
            the tokens `offsets[p]` to `offsets[p + 1] - 1`. None for padded tensors. Where they
            end at q.shape[1] and not at q.shape[0], q, k, v and the result are heads first; not
            seen in compiled graphs, nor on a GPU beside `longest`, a bias or a mask.
        longest: with `offsets`, tokens that no problem exceeds. Without it they are read, for which
            a GPU has to finish and compiled graphs have no way; there it is taken on trust.
        scale: factor on the scores; 1/sqrt(dim) by default.
        dropout: probability with which each weight is zeroed (the rest scaled up). Always active.
        head_gate: factor on each head's output: (*batch, heads) or (*batch, queries, heads),
            packed (problems, heads) or (total, heads).
        pattern: is shown the weights (*batch or problems, heads, queries, keys) before dropout, and
            what it returns takes their place; then they are computed in full.
    """

    bias: Float[Tensor, "..."] | None
    mask: Bool[Tensor, "..."] | None
    offsets: Int[Tensor, " problems_and_one"] | None
    longest: int | None
    scale: float | None
    dropout: float
    head_gate: Float[Tensor, "..."] | None
    pattern: Callable[[Tensor], Tensor] | None


class ShortCall(NamedTuple):
    """Arguments of `short_attention` after its checks.

    Padded: q, k and v (problems, heads, tokens, dim), `offsets` None. Packed: (1, heads, total,
    dim), problem p owning the tokens from `offsets[p]` to `offsets[p + 1]`. Any axis of a bias or
    mask (problems, heads, queries, keys) may be 1; where packed, queries = keys = `longest`, an
    upper bound of the tokens in a problem. It is None where it is unknown while tracing, which
    happens only where bias and mask, if any, are alike for all tokens. The queries of a gate
    (problems, heads, queries) may be 1; packed, it is (1, heads, total) or (problems, heads, 1).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    longest: int | None
    bias: Tensor | None = None
    mask: Tensor | None = None
    offsets: Tensor | None = None
    dropout: float = 0.0
    head_gate: Tensor | None = None
    pattern: Callable[[Tensor], Tensor] | None = None

    def misfit(self, tokens: tuple[int, int], channels: tuple[int, int]) -> str | None:
        """Why a kernel for problems within these bounds cannot take the call, or None."""
        q, k, v = self.q, self.k, self.v
        for dim in (q.shape[-1], v.shape[-1]):
            if not channels[0] <= dim <= channels[1]:
                return f"a head dim is {dim}, not within {channels[0]} to {channels[1]}"
        sizes = (q.shape[-2], k.shape[-2]) if self.offsets is None else (self.longest,)
        for size in sizes:
            if size is not None and not tokens[0] <= size <= tokens[1]:
                return f"a problem has {size} tokens, not within {tokens[0]} to {tokens[1]}"
        return "there are no problems" if q.numel() == 0 else None

    def exported(self) -> str | None:
        """Why a kernel should not take the call if it is being exported."""
        if torch.compiler.is_exporting():
            return "an exported graph is made of torch's own operators"
        return None
