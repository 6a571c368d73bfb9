"""Problems that no short kernel takes: `attention` on the padded batch."""

import torch
from torch import Tensor

from .._attention import reference
from .._attention.call import AttentionCall
from .._attention.operator import ATTENTION
from .._normal import nothing
from .call import ShortCall

LONG = ATTENTION.without("short")  # whose kernels have been asked


def run(call: ShortCall) -> Tensor:
    """Pads packed problems to the longest one and lets `attention` choose its backend."""
    if call.q.shape[2] == 0:
        return nothing(call.q, call.k, call.v)
    return unpadded(call, LONG(as_attention(call)))


def define(call: ShortCall) -> Tensor:
    """Every problem padded to the longest one; any dtype, differentiable any number of times."""
    if call.q.shape[2] == 0:
        return nothing(call.q, call.k, call.v)
    return unpadded(call, reference.run(as_attention(call)))


def as_attention(call: ShortCall) -> AttentionCall:
    """The same problems, padded to the longest one, as one call of `attention`."""
    q, k, v, gate, lengths = call.q, call.k, call.v, call.head_gate, None
    if call.offsets is not None:
        start, lengths = call.offsets[:-1], call.offsets.diff()
        longest = int(lengths.max()) if call.longest is None else call.longest
        position = torch.arange(longest, device=q.device)
        token = (start[:, None] + position).clamp(max=q.shape[2] - 1)
        q, k, v = (x[0].transpose(0, 1)[token].transpose(1, 2) for x in (q, k, v))
        if gate is not None and (gate.shape[0], gate.shape[2]) == (1, call.q.shape[2]):
            gate = gate[0].transpose(0, 1)[token].transpose(1, 2)
    return AttentionCall(
        q, k, v, call.scale, bias=call.bias, mask=call.mask, lengths=lengths, dropout=call.dropout,
        head_gate=gate, pattern=call.pattern,
    )  # fmt: skip


def unpadded(call: ShortCall, heads: Tensor) -> Tensor:
    """The outputs of `as_attention` in the layout of `q`."""
    if call.offsets is None:
        return heads
    token = torch.arange(call.q.shape[2], device=heads.device)
    problem = torch.searchsorted(call.offsets, token, right=True) - 1
    return heads[problem, :, token - call.offsets[problem]].transpose(0, 1)[None]
