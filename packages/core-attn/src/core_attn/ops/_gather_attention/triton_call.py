"""The arguments of the Triton kernels of attention over lists, importable without triton."""

from typing import NamedTuple

from torch import Tensor

from .._triton_host import Tiles, rows_like
from .triton_tiles import Problem, tiles_for


class Inputs(NamedTuple):
    """A call of `gather_attention`, `cluster_attention` or `neighborhood_attention`.

    q, k and v are (batch, heads, tokens, dim). Group g of (groups, members) queries reads one list
    of (groups, picks) keys; lists are (batch or 1, heads or 1, groups, …), -1 is nobody, and
    without `queries` group g is query g. Outputs lie by query, in one group each, or `by_member`.

    Attributes:
        ranked: added to unscaled scores, (batch, heads, queries, sum of window): a column for each
            coordinate of a slot along each axis of the window.
        bias: (batch, heads, groups, members, picks), any axis 1.
        extra_k: keys that all queries see first, (batch or 1, heads, groups or 1, extra, dim).
        extra_v: their values.
        extra_bias: (batch, heads, groups, members, extra), any axis 1, or by query (batch, heads,
            queries, extra).
        added: added to the weights of the picks, (batch, heads, queries, picks).
        seed: there where weights are dropped.
        window: slots along the axes of a window, whose product is picks; where there is `ranked`.
        masked: whether -1 among the keys is no key; else it is one of zeros.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    queries: Tensor | None
    keys: Tensor
    ranked: Tensor | None
    bias: Tensor | None
    extra_k: Tensor | None
    extra_v: Tensor | None
    extra_bias: Tensor | None
    added: Tensor | None
    seed: Tensor | None
    window: list[int] | None
    masked: bool
    by_member: bool
    causal: bool
    self_bias: float
    scale: float
    dropout: float

    @property
    def members(self) -> int:
        """The queries of a group."""
        return 1 if self.queries is None else self.queries.shape[3]

    @property
    def plane(self) -> tuple[int, int, int, int, int]:
        """The shape of the scores of what is listed: batch, heads, groups, members, picks."""
        batch, heads, _, _ = self.q.shape
        groups, picks = self.keys.shape[2:]
        return batch, heads, groups, self.members, picks

    @property
    def problem(self) -> Problem:
        """What decides on the tiles."""
        given = (self.bias, self.extra_k, self.added, self.seed)
        full = any(x is not None for x in given)
        dim = max(self.q.shape[3], self.v.shape[3])
        return Problem(self.q.element_size(), dim, self.members, self.keys.shape[3], full)

    def tiles(self, arch: str, kernel: str) -> Tiles:
        """The table's tiles for one of the kernels."""
        return tiles_for(arch, kernel, self.problem)

    def output(self) -> Tensor:
        """Memory for the outputs, heads inside of tokens where the queries have them so."""
        batch, heads, groups, members, _ = self.plane
        if not self.by_member:
            return rows_like(self.q, heads, self.v.shape[3])
        return self.q.new_empty(batch, heads, groups * members, self.v.shape[3])


FLOATS = ("q", "k", "v", "ranked", "bias", "extra_k", "extra_v", "extra_bias", "added")
TENSORS = Inputs._fields.index("window")  # all before it are tensors
