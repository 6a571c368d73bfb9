"""The arguments of attention: as they are given, and checked in one layout."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .._checks import grouped

FLOATS = ("q", "k", "v", "bias", "head_gate")


class WeightsOptions(TypedDict, total=False):
    """What decides the weights of `attention`; all may be left out.

    Attributes:
        bias: added to the scores, broadcastable to (*batch, heads, queries, keys); -inf forbids.
        mask: True where a query may see a key, broadcastable like `bias`.
        lengths: the number of valid keys of each batch entry; keys from there on are padding, and
            neither they nor their values reach a result or a gradient, whatever they hold.
        causal: forbid keys after the query's position.
        window: keys at most this far to the left and right; one number serves for both sides.
        scale: factor on the scores; 1/sqrt(dim) by default.
        k_head_map: for every query head, the key head it reads.
    """

    bias: Float[Tensor, "..."] | None
    mask: Bool[Tensor, "..."] | None
    lengths: Int[Tensor, "*batch"] | None
    causal: bool
    window: int | tuple[int, int] | None
    scale: float | None
    k_head_map: Sequence[int] | None


class AttentionOptions(WeightsOptions, total=False):
    """What `attention` takes besides queries, keys and values: `WeightsOptions` and these.

    Attributes:
        dropout: probability with which each weight is zeroed (the rest scaled up). Always active.
        v_head_map: for every query head, the value head it reads.
        head_gate: factor on each head's output, (*batch, heads) or (*batch, queries, heads).
        pattern: is shown the weights (*batch, heads, queries, keys) before dropout, and what it
            returns takes their place; then they are computed in full.
    """

    dropout: float
    v_head_map: Sequence[int] | None
    head_gate: Float[Tensor, "..."] | None
    pattern: Callable[[Tensor], Tensor] | None


class AttentionCall(NamedTuple):
    """Arguments of `attention` after its checks, all batch dimensions as one.

    q, k and v are (batch, heads, tokens, dim); head maps are None where they are the identity. Any
    axis of a bias or mask (batch, heads, queries, keys) may be 1, and so may the queries of a gate
    (batch, heads, queries).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    bias: Tensor | None = None
    mask: Tensor | None = None
    lengths: Tensor | None = None
    causal: bool = False
    window: tuple[int, int] | None = None
    dropout: float = 0.0
    k_head_map: tuple[int, ...] | None = None
    v_head_map: tuple[int, ...] | None = None
    head_gate: Tensor | None = None
    pattern: Callable[[Tensor], Tensor] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether every query may see every key and nothing is added to the scores."""
        return (
            self.bias is None
            and self.mask is None
            and self.lengths is None
            and not self.causal
            and self.window is None
        )

    @property
    def is_grouped(self) -> bool:
        """Whether consecutive query heads share keys and values, as many for both."""
        heads, stored = self.q.shape[1], self.k.shape[1]
        if self.k_head_map is None or self.v.shape[1] != stored or heads % stored:
            return False
        return self.k_head_map == self.v_head_map == grouped(heads, stored)

    def allowed(self, rows: slice | None = None) -> Tensor | None:
        """Mask, lengths, causality and window as one mask for the given queries; None = all."""
        mask, rows = self.mask, slice(None) if rows is None else rows
        if mask is not None and mask.shape[-2] > 1:
            mask = mask[..., rows, :]
        keys = torch.arange(self.k.shape[-2], device=self.q.device)
        if self.lengths is not None:
            mask = _both(mask, keys < self.lengths[:, None, None, None])
        if self.causal or self.window is not None:
            queries, tokens = self.q.shape[-2], self.k.shape[-2]
            position = torch.arange(queries, device=self.q.device)[rows] + tokens - queries
            ahead = keys - position[:, None]
            if self.causal:
                mask = _both(mask, ahead <= 0)
            if self.window is not None:
                left, right = self.window
                mask = _both(mask, (ahead >= -left) & (ahead <= right))
        return mask if mask is None else mask[(None,) * (4 - mask.dim())]

    def shielded(self) -> tuple[Tensor, Tensor]:
        """Keys and values with zeros for padding: 0 times what it holds could be NaN."""
        if self.lengths is None:
            return self.k, self.v
        tokens = torch.arange(self.k.shape[-2], device=self.k.device)
        padding = (tokens >= self.lengths[:, None])[:, None, :, None]
        return self.k.masked_fill(padding, 0), self.v.masked_fill(padding, 0)

    def gated(self, heads: Tensor) -> Tensor:
        """Applies the head gate, where there is one, to outputs (batch, heads, queries, dim)."""
        return heads if self.head_gate is None else heads * self.head_gate[..., None]


def take_heads(x: Tensor, head_map: tuple[int, ...] | None) -> Tensor:
    """Lays out stored heads as the query heads read them."""
    return x if head_map is None else x[:, list(head_map)]


def _both(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a & b
