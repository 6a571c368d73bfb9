"""The checked arguments of one attention call."""

from typing import NamedTuple

import torch
from torch import Tensor


class AttentionCall(NamedTuple):
    """Arguments of `attention` after its checks; head maps are None where they are the identity."""

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None
    mask: Tensor | None
    lengths: Tensor | None
    causal: bool
    window: tuple[int, int] | None
    scale: float
    dropout: float
    k_head_map: tuple[int, ...] | None
    v_head_map: tuple[int, ...] | None
    head_gate: Tensor | None

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

    def allowed(self, rows: slice = slice(None), *, with_causal: bool = True) -> Tensor | None:
        """Mask, lengths, causality and window as one mask for the given queries; None = all."""
        mask = self.mask
        if mask is not None and mask.shape[-2] > 1:
            mask = mask[..., rows, :]
        keys = torch.arange(self.k.shape[-2], device=self.q.device)
        if self.lengths is not None:
            mask = _both(mask, keys < self.lengths[..., None, None, None])
        causal = self.causal and with_causal
        if causal or self.window is not None:
            queries, tokens = self.q.shape[-2], self.k.shape[-2]
            position = torch.arange(queries, device=self.q.device)[rows] + tokens - queries
            ahead = keys - position[:, None]
            if causal:
                mask = _both(mask, ahead <= 0)
            if self.window is not None:
                left, right = self.window
                mask = _both(mask, (ahead >= -left) & (ahead <= right))
        return mask

    def gated(self, heads: Tensor) -> Tensor:
        """Applies the head gate, where there is one, to outputs (*batch, heads, queries, dim)."""
        gate = self.head_gate
        if gate is None:
            return heads
        if gate.dim() == self.q.dim() - 2:
            return heads * gate[..., None, None]
        return heads * gate.transpose(-1, -2)[..., None]


def take_heads(x: Tensor, head_map: tuple[int, ...] | None) -> Tensor:
    """Lays out stored heads as the query heads read them."""
    return x if head_map is None else x[..., list(head_map), :, :]


def _both(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a & b
