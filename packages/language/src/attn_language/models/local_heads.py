"""Causal attention of blocks of tokens to themselves and the block before."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import AttentionLayer

from .parts import Growing, rotate


class RelativeTerms(nn.Module):
    """Learned vectors per distance, added to keys and to values.

    Source: Shaw et al., 2018, "Self-Attention with Relative Position Representations",
        arXiv 1803.02155, eqs. (3) and (4).
    """

    def __init__(self, dim: int, farthest: int):
        super().__init__()
        self.keys, self.values = (
            nn.Parameter(torch.randn(farthest + 1, dim) * dim**-0.5) for _ in range(2)
        )

    def clipped(self, distance: Tensor) -> Tensor:
        """Distances as rows of the tables."""
        return distance.clamp(0, len(self.keys) - 1)

    def bias(self, q: Tensor, distance: Tensor) -> Tensor:
        """What the keys' vectors add to the scores; q is scaled as they are."""
        scores = q @ self.keys.T
        row = self.clipped(distance).expand(*scores.shape[:-1], distance.shape[-1])
        return scores.gather(-1, row)

    def change(self, weights: Tensor, distance: Tensor) -> Tensor:
        """What the values' vectors add to the outputs."""
        row = self.clipped(distance).expand_as(weights)
        by_row = weights.new_zeros(*weights.shape[:-1], len(self.values))
        return by_row.scatter_add(-1, row, weights) @ self.values


class LocalState(NamedTuple):
    """Keys and values of the local heads (batch, heads, tokens, dim), keys already rotated."""

    k: Growing
    v: Growing


class LocalHeads(AttentionLayer):
    """Causal attention of each block of tokens to itself and the block before.

    Args:
        head_dim: features of a head.
        window: tokens of a block.
        farthest: distance up to which learned relative vectors differ; None for rotary positions.
        dropout: probability of dropping a weight, in training.

    Source: Roy et al., 2020, arXiv 2003.05997, section 4.1.
    """

    def __init__(self, head_dim: int, window: int, farthest: int | None, dropout: float = 0.0):
        super().__init__()
        self.window, self.dropout = window, dropout
        self.relative = None if farthest is None else RelativeTerms(head_dim, farthest)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: LocalState | None = None,
        valid: Bool[Tensor, "batch tokens"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens heads dim"], LocalState]:
        """The heads' outputs, and the state. Texts of any length: the last block may be short.

        What padding gets decides in the port which clusters it joins, and so what they hold.
        """
        start = 0 if state is None else state.k.x.shape[2]
        if self.relative is None:  # rotary scores depend on distances only
            positions = torch.arange(start, start + q.shape[2], device=q.device)
            q, k = rotate(q, positions), rotate(k, positions)
        if state is not None:
            state = LocalState(state.k.extend(k), state.v.extend(v))
            return self._step(q, state, start), state
        return self._blocks(q, k, v, valid), LocalState(Growing(k), Growing(v))

    def _blocks(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        w, tokens = self.window, q.shape[2]
        blocks = -(-tokens // w)
        q, k, v = (F.pad(x, (0, 0, 0, blocks * w - tokens)) for x in (q, k, v))
        q = q.unflatten(2, (blocks, w)).transpose(1, 2)
        k, v = (F.pad(x, (0, 0, w, 0)).unfold(2, 2 * w, w) for x in (k, v))
        k, v = (x.permute(0, 2, 1, 4, 3) for x in (k, v))  # batch blocks heads 2w dim
        place = torch.arange(2 * w, device=q.device) - w
        exists = place + w * torch.arange(blocks, device=q.device)[:, None] >= 0
        distance = torch.arange(w, device=q.device)[:, None] - place
        mask = exists[:, None, None] & (distance >= 0)
        if valid is not None:
            known = F.pad(valid, (w, blocks * w - tokens)).unfold(1, 2 * w, w)
            mask = mask & known[:, :, None, None]
            far = ~mask.any(-1, keepdim=True)  # padding a block from the text: the plain mean
            q, mask = q.masked_fill(far, 0.0), mask | far
        heads = self._attend(q, k, v, mask, distance)
        return heads.flatten(1, 2)[:, :tokens]

    def _step(self, q: Tensor, state: LocalState, start: int) -> Tensor:
        first = max(start // self.window - 1, 0) * self.window
        k, v = state.k.x[:, :, first:], state.v.x[:, :, first:]
        here = torch.arange(start, start + q.shape[2], device=q.device)[:, None]
        there = torch.arange(first, first + k.shape[2], device=q.device)
        mask = (there <= here) & (there // self.window >= here // self.window - 1)
        return self._attend(q, k, v, mask, here - there)

    def _attend(self, q, k, v, mask: Tensor, distance: Tensor) -> Tensor:
        if self.relative is None:
            return self.attend(q, k, v, mask=mask, dropout=self.dropout)
        bias = self.relative.bias(q * q.shape[-1] ** -0.5, distance)
        return attend_relative(self, q, k, v, bias, mask, distance, self.relative, None)


def attend_relative(
    layer: AttentionLayer, q, k, v, bias, mask, distance, relative: RelativeTerms, scale
) -> Float[Tensor, "*batch queries heads dim"]:
    """`layer.attend` with what relative vectors add to the values: it needs the weights."""
    weights: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, seen: Tensor) -> None:
        weights.append(seen)

    handle = layer.pattern.register_forward_hook(keep)
    try:
        heads = layer.attend(q, k, v, bias=bias, mask=mask, scale=scale)
    finally:
        handle.remove()
    return heads + relative.change(weights[-1], distance).transpose(-2, -3)
