"""pluecker_mean on a GPU: the Triton kernels as an operator of torch."""

import torch
from torch import Tensor

from .._along_tokens import native, triton_host
from .call import PlueckerCall
from .cpu import INPUTS, derived


def run(call: PlueckerCall) -> Tensor:
    """The kernels take float32, rows of features side by side."""
    z = call.z.float().contiguous()
    return derived(call, forward(z, list(call.offsets), call.eps).to(call.z.dtype))


def refuses(call: PlueckerCall) -> str | None:
    """It takes all but float64 on a GPU, to 128 features."""
    if (reason := triton_host.refuses(call.z)) is not None:
        return reason
    if call.z.shape[-1] > 128:
        return f"a plane of {call.z.shape[-1]} features does not fit a program; 128 do"
    return None


def reluctant(call: PlueckerCall) -> str | None:
    """It leaves exports, and CPUs under the interpreter, to others."""
    return triton_host.reluctant(call.z)


@torch.library.custom_op(
    "core_attn::pluecker_mean_triton", mutates_args=(), schema=f"({INPUTS}) -> Tensor"
)
def forward(*inputs):
    """The mean coordinates."""
    from . import triton_kernels

    launch, out = triton_kernels.plan_forward(*inputs)
    launch()
    return out


@torch.library.custom_op(
    "core_attn::pluecker_mean_triton_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {INPUTS}) -> Tensor",
)
def backward(grad, *inputs):
    """The gradient of the vectors."""
    from . import triton_kernels

    launch, dz = triton_kernels.plan_backward(grad.contiguous(), *inputs)
    launch()
    return dz


@forward.register_fake
def _(z, offsets, eps):
    return z.new_empty(*z.shape[:2], z.shape[2] * (z.shape[2] - 1) // 2)


@backward.register_fake
def _(grad, z, offsets, eps):
    return torch.empty_like(z)


def _save(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)  # none comes where the definition is derived in its place
    ctx.save_for_backward(inputs[0])
    ctx.rest = inputs[1:]


def _differentiate(ctx, grad):
    if grad is None:
        return None, None, None
    return backward(grad, *ctx.saved_tensors, *ctx.rest), None, None


forward.register_autograd(_differentiate, setup_context=_save)
backward.register_autograd(native.once("pluecker_mean"))
