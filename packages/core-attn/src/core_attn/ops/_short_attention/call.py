"""The checked arguments of one short_attention call."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._attention.call import AttentionCall


class ShortCall(NamedTuple):
    """Arguments of `short_attention` after its checks.

    Padded: q (*batch, heads, queries, dim), k and v likewise, `offsets` None. Packed: q, k, v
    (total, heads, dim), problem p owning the tokens from `offsets[p]` to `offsets[p + 1]`.
    Bias and mask broadcast to (*batch or problems, heads, queries, keys); where packed, queries =
    keys = `longest`, an upper bound of the tokens in a problem. It is None where it is unknown
    while tracing, which happens to packed calls without bias and mask only.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None
    mask: Tensor | None
    offsets: Tensor | None
    longest: int | None
    scale: float
    dropout: float
    head_gate: Tensor | None

    @property
    def under_torch_func(self) -> bool:
        """Whether `torch.func` transforms the call (grad, vmap, jvp, ...); the reference can."""
        return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()

    def as_attention(self) -> AttentionCall:
        """The same problems, padded to the longest one, as one call of `attention`."""
        if self.offsets is None:
            q, k, v, gate, lengths = self.q, self.k, self.v, self.head_gate, None
        else:
            start, lengths = self.offsets[:-1], self.offsets.diff()
            longest = int(lengths.max()) if self.longest is None else self.longest
            position = torch.arange(longest, device=self.q.device)
            token = (start[:, None] + position).clamp(max=self.q.shape[0] - 1)
            q, k, v = (x[token].transpose(1, 2) for x in (self.q, self.k, self.v))
            gate = self.head_gate
            if gate is not None and gate.shape[0] == self.q.shape[0]:
                gate = gate[token]
        return AttentionCall(
            q, k, v, self.bias, self.mask, lengths, False, None, self.scale, self.dropout,
            None, None, gate,
        )  # fmt: skip

    def unpadded(self, heads: Tensor) -> Tensor:
        """The outputs of `as_attention` in the layout of `q`."""
        if self.offsets is None:
            return heads
        token = torch.arange(self.q.shape[0], device=self.q.device)
        problem = torch.searchsorted(self.offsets, token, right=True) - 1
        return heads[problem, :, token - self.offsets[problem]]
