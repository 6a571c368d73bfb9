"""edge_attention on a CPU: the C kernel as operators of torch, differentiable twice."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from ...native import Kernel
from .._dispatch import constant_in_graphs
from .call import EdgeCall

MOST_DEGREES = 16  # as in the kernel
KERNEL = Kernel("edge_attention", Path(__file__).with_name("kernel"), ["core_attn_edge_attention"])
POINTERS = (
    "q", "k", "v", "u", "bias", "out", "grad", "dq", "dk", "dv", "du", "dbias", "tq", "tk", "tv",
    "tu", "tbias", "dgrad",
)  # fmt: skip


class Call(ctypes.Structure):
    """The arguments of a pass; `Call` of kernel/edge_attention.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("atoms", "heads", "dim", "v_dim", "degrees", "first_only")
        ),
        ("offsets", ctypes.c_void_p),
        ("channels", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in POINTERS),
    ]


def run(call: EdgeCall) -> Tensor:
    """The operator of torch on contiguous tensors."""
    q, k, v, u = (x.contiguous() for x in (call.q, call.k, call.v, call.direction))
    bias = None if call.bias is None else call.bias.contiguous()
    channels = torch.tensor(call.degrees)
    attend = forward if torch.compiler.is_compiling() else _Forward.apply
    return attend(q, k, v, u, bias, call.offsets, channels, call.scale, call.first_only)


@constant_in_graphs
def _missing() -> str | None:
    return KERNEL.missing()


def refuses(call: EdgeCall) -> str | None:
    """It takes float32 on a CPU with a C compiler, without dropout and biases of pairs."""
    if call.q.device.type != "cpu":
        return f"the tensors are on {call.q.device.type}"
    if call.q.dtype != torch.float32:
        return f"it computes in float32, the tensors are {call.q.dtype}"
    if call.pair_bias is not None:
        return "it knows no bias of pairs"
    if call.dropout:
        return "it knows no dropout"
    if len(call.degrees) > MOST_DEGREES:
        return f"it knows {MOST_DEGREES} degrees, there are {len(call.degrees)}"
    return _missing()


def _solve(
    number: int, q: Tensor, v: Tensor, offsets: Tensor, channels: Tensor, scale: float,
    first_only: bool, **tensors: Tensor | None,
) -> None:  # fmt: skip
    call = Call(
        atoms=offsets.shape[0] - 1, heads=q.shape[1], dim=q.shape[2], v_dim=v.shape[2],
        degrees=channels.shape[0], first_only=int(first_only), offsets=offsets.data_ptr(),
        channels=channels.data_ptr(), scale=scale,
    )  # fmt: skip
    kept = {"q": q, "v": v} | {name: x for name, x in tensors.items() if x is not None}
    kept = {name: x.contiguous() for name, x in kept.items()}
    for name, x in kept.items():
        setattr(call, name, x.data_ptr())
    KERNEL.run("core_attn_edge_attention", call, number)


@torch.library.custom_op("core_attn::edge_attention", mutates_args=(), device_types="cpu")
def forward(
    q: Tensor, k: Tensor, v: Tensor, u: Tensor, bias: Tensor | None, offsets: Tensor,
    channels: Tensor, scale: float, first_only: bool,
) -> Tensor:  # fmt: skip
    """The heads' outputs."""
    out = v.new_empty(q.shape[0], q.shape[1], v.shape[2])
    if first_only or k.shape[0] == 0:
        out.zero_()
    _solve(0, q, v, offsets, channels, scale, first_only, k=k, u=u, bias=bias, out=out)
    return out


@torch.library.custom_op("core_attn::edge_attention_backward", mutates_args=(), device_types="cpu")
def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, u: Tensor, bias: Tensor | None, offsets: Tensor,
    channels: Tensor, scale: float, first_only: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, u and bias."""
    found = _gradients(q, k, v, u)
    dq, dk, dv, du, dbias = found
    _solve(
        1, q, v, offsets, channels, scale, first_only, k=k, u=u, bias=bias, grad=grad, dq=dq,
        dk=dk, dv=dv, du=du, dbias=dbias,
    )  # fmt: skip
    return found


@torch.library.custom_op("core_attn::edge_attention_twice", mutates_args=(), device_types="cpu")
def twice(
    tq: Tensor, tk: Tensor, tv: Tensor, tu: Tensor, tbias: Tensor, grad: Tensor, q: Tensor,
    k: Tensor, v: Tensor, u: Tensor, bias: Tensor | None, offsets: Tensor, channels: Tensor,
    scale: float, first_only: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of grad, q, k, v, u and bias, given those of what `backward` returns."""
    dgrad, found = torch.zeros_like(grad), _gradients(q, k, v, u)
    dq, dk, dv, du, dbias = found
    _solve(
        2, q, v, offsets, channels, scale, first_only, k=k, u=u, bias=bias, grad=grad, dq=dq,
        dk=dk, dv=dv, du=du, dbias=dbias, tq=tq, tk=tk, tv=tv, tu=tu, tbias=tbias, dgrad=dgrad,
    )  # fmt: skip
    return dgrad, *found


def _gradients(
    q: Tensor, k: Tensor, v: Tensor, u: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v), torch.zeros_like(u),
        k.new_zeros(k.shape[0]),
    )  # fmt: skip


@forward.register_fake
def _(q, k, v, u, bias, offsets, channels, scale, first_only):
    return v.new_empty(q.shape[0], q.shape[1], v.shape[2])


@backward.register_fake
def _(grad, q, k, v, u, bias, offsets, channels, scale, first_only):
    return _gradients(q, k, v, u)


@twice.register_fake
def _(tq, tk, tv, tu, tbias, grad, q, k, v, u, bias, offsets, channels, scale, first_only):
    return torch.zeros_like(grad), *_gradients(q, k, v, u)


def _save_forward(ctx, inputs, output):
    *tensors, ctx.scale, ctx.first_only = inputs
    ctx.save_for_backward(*tensors)


def _forward_backward(ctx, grad):
    saved = ctx.saved_tensors  # once: a checkpoint gives them only once
    found = _Backward.apply(grad.contiguous(), *saved, ctx.scale, ctx.first_only)
    dq, dk, dv, du, dbias = found
    bias = saved[4]
    return dq, dk, dv, du, None if bias is None else dbias, None, None, None, None


def _save_backward(ctx, inputs, output):
    *tensors, ctx.scale, ctx.first_only = inputs
    ctx.save_for_backward(*tensors)


def _backward_backward(ctx, *tangents):
    tangents = [x.contiguous() for x in tangents]
    saved = ctx.saved_tensors
    dgrad, dq, dk, dv, du, dbias = twice(*tangents, *saved, ctx.scale, ctx.first_only)
    bias = saved[5]
    return dgrad, dq, dk, dv, du, None if bias is None else dbias, None, None, None, None


forward.register_autograd(_forward_backward, setup_context=_save_forward)
backward.register_autograd(_backward_backward, setup_context=_save_backward)


class _Forward(torch.autograd.Function):
    """`forward` for eager calls, where a registered derivative costs several times as much."""

    @staticmethod
    def forward(ctx, *inputs):
        _save_forward(ctx, inputs, None)
        return forward(*inputs)

    @staticmethod
    def backward(ctx, *grads):
        return _forward_backward(ctx, *grads)


class _Backward(torch.autograd.Function):
    """`backward` likewise."""

    @staticmethod
    def forward(ctx, *inputs):
        _save_backward(ctx, inputs, None)
        return backward(*inputs)

    @staticmethod
    def backward(ctx, *tangents):
        return _backward_backward(ctx, *tangents)
