"""Norms and band products in C on a CPU, in torch's own operators everywhere else."""

import ctypes
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from core_attn.native import Kernel

KERNEL = Kernel("molecular_rows", Path(__file__).with_name("kernel"), ["attn_molecular_rows"])
CHUNKS = 32
NORM, NORM_BACKWARD, NORM_TWICE, BAND, BAND_X, BAND_WEIGHT = range(6)


class Call(ctypes.Structure):
    """The arguments of a pass; `Call` of kernel/rows.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "dim", "band", "chunks")),
        ("eps", ctypes.c_float),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "x", "weight", "grad", "tx", "tweight", "first", "out", "dx", "dweight",
            )
        ),
    ]  # fmt: skip


def rms_norm(
    x: Float[Tensor, "*rows dim"], weight: Float[Tensor, " dim"], eps: float
) -> Float[Tensor, "*rows dim"]:
    """x / sqrt(mean x^2 + eps) * weight, differentiable twice by two calls of the kernel.

    Example:
        >>> round(rms_norm(torch.tensor([[3.0, 4.0]]), torch.ones(2), 0.0).norm().item() ** 2, 3)
        2.0
    """
    if _plain(x):
        return F.rms_norm(x, weight.shape, weight, eps)
    return _Norm.apply(x.contiguous(), weight, eps)


def band_product(
    x: Float[Tensor, "rows band"],
    weight: Float[Tensor, "functions dim"],
    first: Int[Tensor, " rows"],
) -> Float[Tensor, "rows dim"]:
    """sum over b of x[e, b] weight[first[e] + b]; differentiable at will.

    Example:
        >>> band_product(torch.ones(1, 2), torch.eye(4), torch.tensor([1])).tolist()
        [[0.0, 1.0, 1.0, 0.0]]
    """
    if _plain(x):
        place = first[:, None] + torch.arange(x.shape[1], device=x.device)
        wide = x.new_zeros(x.shape[0], weight.shape[0]).scatter_add(1, place, x)
        return wide @ weight
    return _Band.apply(x, weight, first)


def _plain(x: Tensor) -> bool:
    """Whether torch's operators must do: the kernel is missing, or is not for this tensor."""
    return (
        x.device.type != "cpu"
        or x.dtype != torch.float32
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or KERNEL.missing() is not None
    )


def _solve(number: int, rows: int, dim: int, band: int = 0, eps: float = 0.0, **tensors: Tensor):
    chunks = max(1, min(CHUNKS, dim // 16 if number == BAND_WEIGHT else rows))
    call = Call(rows=rows, dim=dim, band=band, chunks=chunks, eps=eps)
    kept = {name: x.contiguous() for name, x in tensors.items()}
    for name, x in kept.items():
        setattr(call, name, x.data_ptr())
    KERNEL.run("attn_molecular_rows", call, number)


def _flat(x: Tensor) -> tuple[int, int]:
    return x.numel() // max(1, x.shape[-1]), x.shape[-1]


class _Norm(torch.autograd.Function):
    """`rms_norm`."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        out = torch.empty_like(x)
        _solve(NORM, *_flat(x), eps=eps, x=x, weight=weight, out=out)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        return *_NormBackward.apply(grad.contiguous(), x, weight, ctx.eps), None


class _NormBackward(torch.autograd.Function):
    """Gradients of x and weight."""

    @staticmethod
    def forward(ctx, grad: Tensor, x: Tensor, weight: Tensor, eps: float):
        ctx.save_for_backward(grad, x, weight)
        ctx.eps = eps
        dx, parts = torch.empty_like(x), x.new_zeros(CHUNKS, x.shape[-1])
        _solve(
            NORM_BACKWARD, *_flat(x), eps=eps, x=x, weight=weight, grad=grad, dx=dx, dweight=parts
        )
        return dx, parts.sum(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, tx: Tensor, tweight: Tensor):
        grad, x, weight = ctx.saved_tensors
        out, dx = torch.empty_like(x), torch.empty_like(x)
        parts = x.new_zeros(CHUNKS, x.shape[-1])
        _solve(
            NORM_TWICE, *_flat(x), eps=ctx.eps, x=x, weight=weight, grad=grad, tx=tx,
            tweight=tweight, out=out, dx=dx, dweight=parts,
        )  # fmt: skip
        return out, dx, parts.sum(0), None


class _Band(torch.autograd.Function):
    """x W by bands."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, first: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, first)
        out = x.new_empty(x.shape[0], weight.shape[1])
        _solve(BAND, *out.shape, x.shape[1], x=x, weight=weight, first=first, out=out)  # pyright: ignore[reportCallIssue]
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight, first = ctx.saved_tensors
        dx = _BandX.apply(grad, weight, first, x.shape[1]) if ctx.needs_input_grad[0] else None
        dw = None
        if ctx.needs_input_grad[1]:
            dw = _BandWeight.apply(x, grad, first, weight.shape[0])
        return dx, dw, None


class _BandX(torch.autograd.Function):
    """grad W^T by bands."""

    @staticmethod
    def forward(ctx, grad: Tensor, weight: Tensor, first: Tensor, band: int) -> Tensor:
        ctx.save_for_backward(grad, weight, first)
        dx = grad.new_empty(grad.shape[0], band)
        _solve(BAND_X, *grad.shape, band, weight=weight, first=first, grad=grad, dx=dx)  # pyright: ignore[reportCallIssue]
        return dx

    @staticmethod
    def backward(ctx, tx: Tensor):
        grad, weight, first = ctx.saved_tensors
        dgrad = _Band.apply(tx, weight, first) if ctx.needs_input_grad[0] else None
        dw = None
        if ctx.needs_input_grad[1]:
            dw = _BandWeight.apply(tx, grad, first, weight.shape[0])
        return dgrad, dw, None, None


class _BandWeight(torch.autograd.Function):
    """x^T grad by bands."""

    @staticmethod
    def forward(ctx, x: Tensor, grad: Tensor, first: Tensor, functions: int) -> Tensor:
        ctx.save_for_backward(x, grad, first)
        dw = grad.new_zeros(functions, grad.shape[1])
        _solve(BAND_WEIGHT, *grad.shape, x.shape[1], x=x, first=first, grad=grad, dweight=dw)  # pyright: ignore[reportCallIssue]
        return dw

    @staticmethod
    def backward(ctx, tw: Tensor):
        x, grad, first = ctx.saved_tensors
        dx = _BandX.apply(grad, tw, first, x.shape[1]) if ctx.needs_input_grad[0] else None
        dgrad = _Band.apply(x, tw, first) if ctx.needs_input_grad[1] else None
        return dx, dgrad, None, None
