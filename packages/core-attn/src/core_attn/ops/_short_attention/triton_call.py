"""The arguments of the Triton kernels of `short_attention`, importable without triton."""

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """The arguments of a call, as the operators pass them on.

    q, k, v are (problems, heads, tokens, dim), or (1, heads, total, dim) where packed; `bias` and
    `mask` (problems, heads, queries, keys) and `gate` (problems, heads, queries) or, per token of
    packed problems, (1, heads, total), may have any axis 1; `seed` is there where weights are
    dropped.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None
    mask: Tensor | None
    offsets: Tensor | None
    gate: Tensor | None
    seed: Tensor | None
    longest: int
    scale: float
    dropout: float

    @property
    def plane(self) -> tuple[int, int, int, int]:
        """The shape of the scores, padded."""
        if self.offsets is not None:
            return self.offsets.shape[0] - 1, self.q.shape[1], self.longest, self.longest
        batch, heads, queries, _ = self.q.shape
        return batch, heads, queries, self.k.shape[2]


TENSORS = Inputs._fields.index("longest")  # all before it are tensors
