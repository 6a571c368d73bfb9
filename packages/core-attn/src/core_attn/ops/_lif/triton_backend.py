"""lif on a GPU: the Triton kernels as an operator of torch."""

import torch
from torch import Tensor

from .._along_tokens import triton_host
from .call import LifCall
from .cpu import INPUTS, complete, derived


def run(call: LifCall) -> tuple[Tensor, Tensor]:
    """The kernels take float32, rows of channels side by side."""
    x = call.x.float().contiguous()
    spikes, last = forward(x, call.state.contiguous(), call.tau, call.threshold)
    return derived(call, spikes.to(call.x.dtype), last)


def refuses(call: LifCall) -> str | None:
    """It takes all but float64 on a GPU."""
    return triton_host.refuses(call.x)


def reluctant(call: LifCall) -> str | None:
    """It leaves exports, and CPUs under the interpreter, to others."""
    return triton_host.reluctant(call.x)


@torch.library.custom_op(
    "core_attn::lif_triton", mutates_args=(), schema=f"({INPUTS}) -> (Tensor, Tensor)"
)
def forward(*inputs):
    """Spikes and the membranes after them."""
    from . import triton_kernels

    launch, outputs = triton_kernels.plan_forward(*inputs)
    launch()
    return outputs


@torch.library.custom_op(
    "core_attn::lif_triton_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor grad_last, {INPUTS}) -> (Tensor, Tensor)",
)
def backward(grad, grad_last, *inputs):
    """Gradients of currents and membranes."""
    from . import triton_kernels

    launches, gradients = triton_kernels.plan_backward(
        grad.contiguous(), grad_last.contiguous(), *inputs
    )
    for launch in launches:
        launch()
    return gradients


complete(forward, backward)
