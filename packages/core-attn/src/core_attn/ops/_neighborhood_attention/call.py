"""The checked arguments of neighborhood attention, and where its blocks and windows lie."""

import math
from functools import reduce
from typing import NamedTuple, Required, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

Sizes = int | tuple[int, ...]


class NeighborhoodScores(TypedDict, total=False):
    """How the scores of `neighborhood_attention` come about; all but `halo` may be left out.

    Numbers per axis of the map may be given as one for all of them.

    Attributes:
        halo: positions that a window has on each side of its block; a window is block + 2 halo.
        block: side of the blocks whose queries share a window; 1 by default: each has its own.
        dilation: step between the positions of a window; with blocks, the map is taken apart into
            that many interleaved maps along each axis.
        stride: step between queries, which counts the queries' map; it divides the block, or is a
            multiple of it.
        mask_padding: whether positions outside the map are forbidden; else they take part with
            keys and values of zeros.
        relative: for each axis a table (2 window - 1, dim), or one per head; a query at i in its
            block adds its product with row slot - i + window - 1 to the score of a slot, unscaled.
        slot_bias: added to the scores by slot of the window, (*window) or (heads, *window).
        global_k: keys that every query sees beside its window.
        global_bias: added to their scores, broadcastable to (*batch, heads, queries, globals).
        scale: factor on the products of queries and keys; 1/sqrt(dim) by default.
    """

    halo: Required[Sizes]
    block: Sizes
    dilation: Sizes
    stride: Sizes
    mask_padding: bool
    relative: tuple[Float[Tensor, "*heads apart dim"], ...] | None
    slot_bias: Float[Tensor, "..."] | None
    global_k: Float[Tensor, "*batch heads globals dim"] | None
    global_bias: Float[Tensor, "..."] | None
    scale: float | None


class Axis(NamedTuple):
    """One axis of the map."""

    size: int
    block: int
    halo: int
    dilation: int
    stride: int

    @property
    def window(self) -> int:
        """Slots of a window."""
        return self.block + 2 * self.halo

    @property
    def queries(self) -> int:
        """Positions of queries."""
        return -(-self.size // self.stride)

    @property
    def members(self) -> int:
        """Queries of a block."""
        return max(self.block // self.stride, 1)

    @property
    def blocks(self) -> int:
        """Blocks, of which the last ones may reach beyond the map."""
        if self.dilation == 1 or self.block == 1:
            return -(-self.queries // self.members)
        return self.dilation * -(-self.size // (self.dilation * self.block))

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Queries (blocks, members) and keys (blocks, window) by position, -1 outside."""
        number = torch.arange(self.blocks, device=device)
        member, slot = (torch.arange(n, device=device) for n in (self.members, self.window))
        if self.dilation == 1 or self.block == 1:
            queries = number[:, None] * self.members + member
            start = number * self.members * self.stride // self.block * self.block
        else:
            start = number // self.dilation * self.dilation * self.block + number % self.dilation
            queries = start[:, None] + member * self.dilation
        keys = start[:, None] + (slot - self.halo) * self.dilation
        queries = queries.masked_fill(queries >= self.queries, -1)
        return queries, keys.masked_fill((keys < 0) | (keys >= self.size), -1)


class NeighborhoodCall(NamedTuple):
    """Arguments of `neighborhood_attention` after its checks, in normal form.

    Tables are (1 or heads, 2 window - 1, dim), slot_bias is (1 or heads, slots) and added
    (*batch, heads, queries, slots), with slots in raster order.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    axes: tuple[Axis, ...]
    relative: tuple[Tensor, ...] | None
    slot_bias: Tensor | None
    global_k: Tensor | None
    global_v: Tensor | None
    global_bias: Tensor | None
    added: Tensor | None
    mask_padding: bool
    scale: float
    dropout: float

    @property
    def slots(self) -> int:
        """Slots of a window."""
        return math.prod([axis.window for axis in self.axes])

    def places(self) -> tuple[Tensor, Tensor]:
        """Queries (blocks, members) and keys (blocks, slots) in raster order, -1 outside."""
        return places(self.axes, self.q.device)

    def ranks(self, per_axis: tuple[int, ...]) -> tuple[Tensor, ...]:
        """For every member or slot of a block, its number along each axis."""
        grid = torch.meshgrid(
            *(torch.arange(n, device=self.q.device) for n in per_axis), indexing="ij"
        )
        return tuple(x.flatten() for x in grid)


def places(axes: tuple[Axis, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Queries (blocks, members) and keys (blocks, slots) of a map in raster order, -1 outside."""
    queries, keys = zip(*(axis.places(device) for axis in axes), strict=True)
    return (
        reduce(_product, zip(queries, (axis.queries for axis in axes), strict=True))[0],
        reduce(_product, zip(keys, (axis.size for axis in axes), strict=True))[0],
    )


def _product(outer: tuple[Tensor, int], inner: tuple[Tensor, int]) -> tuple[Tensor, int]:
    """Places on two axes as places on their plane."""
    (a, rows), (b, columns) = outer, inner
    a, b = a[:, None, :, None], b[None, :, None, :]
    place = torch.where((a < 0) | (b < 0), -1, a * columns + b)
    return place.flatten(2).flatten(0, 1), rows * columns
