"""The checked arguments of one edge_attention call."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class EdgeCall(NamedTuple):
    """Arguments of `edge_attention` after its checks.

    q is (edges or atoms, heads, dim), k and v (edges, heads, dim), packed by `offsets`; with
    `slots`, every atom has exactly so many edges.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    direction: Tensor
    offsets: Tensor
    bias: Tensor | None
    pair_bias: Tensor | None
    degrees: tuple[int, ...]
    scale: float
    dropout: float
    first_only: bool
    slots: int | None
    pattern: Callable[[Tensor], Tensor] | None

    def tensors(self) -> tuple[Tensor | None, ...]:
        """q, k, v, direction, bias and offsets, contiguous."""
        found = (self.q, self.k, self.v, self.direction, self.bias, self.offsets)
        return tuple(None if x is None else x.contiguous() for x in found)

    def beyond_kernels(self) -> str | None:
        """What no kernel knows of the call."""
        if self.q.dtype != torch.float32:
            return f"it computes in float32, the tensors are {self.q.dtype}"
        if self.pair_bias is not None:
            return "it knows no bias of pairs"
        return "it knows no dropout" if self.dropout else None

    def layout(self) -> "Layout":
        """How edges are padded and packed again."""
        if self.slots is not None:
            return Layout(None, None, self.offsets.shape[0] - 1, self.slots)
        counts = self.offsets.diff()
        center = torch.repeat_interleave(counts, output_size=self.k.shape[0])
        slot = torch.arange(self.k.shape[0], device=center.device) - self.offsets[center]
        return Layout(center, slot, len(counts), int(counts.max()))


class Layout(NamedTuple):
    """Atom and slot of every edge, None where all atoms have as many."""

    center: Tensor | None
    slot: Tensor | None
    atoms: int
    longest: int

    def padded(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """(edges, ...) as (atoms, longest, ...)."""
        if self.center is None or self.slot is None:
            return x.unflatten(0, (-1, self.longest))
        full = x.new_full((self.atoms, self.longest, *x.shape[1:]), fill)
        return full.index_put((self.center, self.slot), x)

    def packed(self, x: Tensor) -> Tensor:
        """The inverse."""
        if self.center is None or self.slot is None:
            return x.flatten(0, 1)
        return x[self.center, self.slot]
