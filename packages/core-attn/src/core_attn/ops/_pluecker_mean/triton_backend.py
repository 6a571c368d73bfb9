"""pluecker_mean on a GPU: the Triton kernels as an operator of torch."""

import torch
from torch import Tensor

from .._along_tokens import triton_host
from .call import PlueckerCall
from .cpu import INPUTS, complete, derived


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


complete(forward, backward)
