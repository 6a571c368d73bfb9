"""An interacting block as one node of the graph: fewer passes over memory, the same numbers.

At the sizes of click models a block is bound by memory: the packed product of 39 fields is 40 MB
for 1,024 rows, and what autograd makes of the equations reads and writes it about 14 times. Here
it is 6: activations in place, the gradients of queries, keys, values and residual masked as they
are written into one buffer, one product each for the input's and the weights' gradient. The
attention itself, forward and backward, is `core_attn.short_attention`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from core_attn.ops.short_attention import short_attention


class FusedBlock(torch.autograd.Function):
    """ReLU(softmax(Q K^T) V + R), layer-normed where there are a gain and a shift.

    Args of `apply`:
        x: (batch, fields, in_width).
        weight: (3 or 4 parts * width, in_width): queries, keys, values, and residual if any.
        bias: its biases, or None.
        gain, shift: of the layer norm after the ReLU, or None.
        relu: how many of the parts, from the first, pass a ReLU.
        residual: "mapped" (the 4th part), "input" (x itself) or "none".
        heads, scale, dropout, eps: as in the block.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gain: Tensor | None,
        shift: Tensor | None,
        relu: int,
        residual: str,
        heads: int,
        scale: float | None,
        dropout: float,
        eps: float,
    ) -> Tensor:
        """Keeps the packed product and the block's output before the norm."""
        parts = 4 if residual == "mapped" else 3
        weights = weight.chunk(parts)
        biases = [None] * parts if bias is None else bias.chunk(parts)
        flat = x.reshape(-1, x.shape[-1])
        packed = []
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            part = flat @ w.T if b is None else torch.addmm(b, flat, w.T)
            packed.append((part.relu_() if i < relu else part).view(*x.shape[:-1], -1))
        with torch.enable_grad():
            qkv = [_heads(part.detach(), heads).requires_grad_() for part in packed[:3]]
            attended = short_attention(*qkv, scale=scale, dropout=dropout)
        y, width = attended.detach().transpose(1, 2).flatten(2), len(weights[0])
        out, mean, rstd = y, None, None
        if residual == "none":
            out = y = y.relu()
        else:
            out = y = torch.add(y, packed[3] if residual == "mapped" else x).relu_()
        if gain is not None:
            out, mean, rstd = torch.native_layer_norm(y, [width], gain, shift, eps)
        ctx.save_for_backward(x, weight, y, gain, shift, mean, rstd, *packed[:relu])
        ctx.attention = (qkv, attended)
        ctx.relu, ctx.residual, ctx.heads, ctx.has_bias = relu, residual, heads, bias is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        """Gradients of x, weight, bias, gain and shift."""
        x, weight, y, gain, shift, mean, rstd, *active = ctx.saved_tensors
        width = y.shape[-1]
        dgain = dshift = None
        if gain is not None:
            grad, dgain, dshift = torch.ops.aten.native_layer_norm_backward(
                grad.contiguous(), y, [width], mean, rstd, gain, shift, [True, True, True]
            )
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
        qkv, attended = ctx.attention
        inner = torch.autograd.grad(attended, qkv, _heads(grad, ctx.heads))
        pieces = [part.transpose(1, 2).flatten(2) for part in inner]
        if ctx.residual == "mapped":
            pieces.append(grad)
        mask = torch.ops.aten.threshold_backward.grad_input
        for piece, part in zip(pieces, active, strict=False):
            mask(piece, part, 0, grad_input=piece)
        pieces = [piece.reshape(-1, width) for piece in pieces]
        flat = x.reshape(-1, x.shape[-1])
        dweight, dbias = torch.empty_like(weight), None
        for piece, into in zip(pieces, dweight.split(width), strict=True):
            torch.mm(piece.T, flat, out=into)
        if ctx.has_bias:
            dbias = torch.cat([piece.sum(0) for piece in pieces])
        dx = None
        if ctx.needs_input_grad[0]:
            dx = torch.zeros_like(flat)
            if ctx.residual == "input":
                dx.copy_(grad.reshape(flat.shape))
            for piece, w in zip(pieces, weight.split(width), strict=True):
                dx.addmm_(piece, w)
            dx = dx.view_as(x)
        return dx, dweight, dbias, dgain, dshift, *(None,) * 6


def _heads(x: Tensor, heads: int) -> Tensor:
    """(batch, fields, width) as (batch, heads, fields, head width)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
