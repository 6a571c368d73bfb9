"""The arguments of the Triton kernels of `attention`, importable without triton."""

from typing import NamedTuple

from torch import Tensor

from .._triton_host import Tiles, power_of_2
from .triton_tiles import tiles_for


class Inputs(NamedTuple):
    """The arguments of an attention call with one batch axis, as the operators pass them on.

    `bias` and `mask` are (batch, heads, queries, keys) and `gate` is (batch, heads, queries), any
    of these axes 1; `seed` is there where weights are dropped.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None
    mask: Tensor | None
    lengths: Tensor | None
    gate: Tensor | None
    seed: Tensor | None
    k_map: list[int] | None
    v_map: list[int] | None
    window: list[int] | None
    scale: float
    dropout: float

    @property
    def plane(self) -> tuple[int, int, int, int]:
        """The shape of the scores."""
        batch, heads, queries, _ = self.q.shape
        return batch, heads, queries, self.k.shape[2]

    @property
    def group(self) -> int:
        """Query heads, one after the other, that share a key head and a value head; else 1."""
        heads, stored = self.q.shape[1], self.k.shape[1]
        if self.k_map is None or self.k_map != self.v_map or heads % stored:
            return 1
        group = heads // stored
        return group if list(self.k_map) == [head // group for head in range(heads)] else 1

    @property
    def sides(self) -> tuple[int | None, int | None]:
        """How far a query sees to the left and right; None where it sees all there is."""
        _, _, queries, keys = self.plane
        left, right = self.window or (keys, queries)
        return left if left < keys - 1 else None, right if right < queries - 1 else None

    @property
    def full(self) -> bool:
        """Whether there is a bias, a mask or dropout, which cost registers."""
        return self.bias is not None or self.mask is not None or self.seed is not None

    @property
    def bias_form(self) -> str | None:
        """What becomes of the gradient of the bias: see `attention_backward_queries`."""
        if self.bias is None:
            return None
        has = [have == want for have, want in zip(self.bias.shape, self.plane, strict=True)]
        if not has[3]:
            return "rows"
        if not has[2]:
            return "columns"
        return "plane" if all(has) else "shared"

    def tiles(self, arch: str, name: str) -> Tiles:
        """The table's tiles for one of the kernels."""
        return tiles_for(arch, name, self.full, self.q.element_size(), self.width)

    @property
    def width(self) -> int:
        """The head dim, padded."""
        return max(32, power_of_2(max(self.q.shape[3], self.v.shape[3])))


TENSORS = Inputs._fields.index("k_map")  # all before it are tensors
