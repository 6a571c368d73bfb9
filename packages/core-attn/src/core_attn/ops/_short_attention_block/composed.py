"""The block as its formula reads: torch's operators around `short_attention`."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .._short_attention.operator import short_attention
from .call import Attend, BlockCall


def run(call: BlockCall) -> Tensor:
    """Any dtype and device; the heads by `short_attention`, or as the layer wants them."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = short_attention(q, k, v, scale=call.scale, dropout=call.dropout)
        return heads.transpose(-2, -3)

    return around(call, call.attend or attend)


def around(call: BlockCall, attend: Attend) -> Tensor:
    """The block around heads that `attend` computes."""
    packed, width = F.linear(call.x, call.weight, call.bias), call.width
    packed, mapped = packed[..., : 3 * width], packed[..., 3 * width :]
    if call.activation == "relu":
        packed = packed.relu()
    q, k, v = packed.unflatten(-1, (3, call.heads, -1)).movedim(-3, 0).transpose(-2, -3)
    y = attend(q, k, v).flatten(-2)
    if call.residual != "none":
        r = call.x if call.residual == "identity" else mapped
        y = y + (r.relu() if call.residual == "linear_relu" else r)
    if not call.norm_first:
        y = y.relu()
    if call.gain is not None:
        # In float32: a small eps is lost in a half precision.
        exact = y if y.dtype == torch.float64 else y.float()
        gain, shift = (None if x is None else x.to(exact.dtype) for x in (call.gain, call.shift))
        y = F.layer_norm(exact, (width,), gain, shift, call.eps).to(y.dtype)
    return y.relu() if call.norm_first else y
