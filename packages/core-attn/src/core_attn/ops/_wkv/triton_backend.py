"""wkv on a GPU: the Triton kernels as an operator of torch."""

import torch
from torch import Tensor

from .._along_tokens import triton_host
from .call import WkvCall
from .cpu import INPUTS, complete, derived


def run(call: WkvCall) -> tuple[Tensor, Tensor]:
    """The kernels take rows of channels side by side."""
    return derived(call, *forward(*(x.contiguous() for x in call)))


def refuses(call: WkvCall) -> str | None:
    """It takes float32 on a GPU."""
    return triton_host.refuses(call.k)


def reluctant(call: WkvCall) -> str | None:
    """It leaves exports, and CPUs under the interpreter, to others."""
    return triton_host.reluctant(call.k)


@torch.library.custom_op(
    "core_attn::wkv_triton", mutates_args=(), schema=f"({INPUTS}) -> (Tensor, Tensor)"
)
def forward(*inputs):
    """Means and the state after them."""
    from . import triton_kernels

    launch, outputs = triton_kernels.plan_forward(*inputs)
    launch()
    return outputs


@torch.library.custom_op(
    "core_attn::wkv_triton_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor grad_last, {INPUTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def backward(grad, grad_last, *inputs):
    """Gradients of all inputs."""
    from . import triton_kernels

    launches, (dk, dv, dw, du, dstate) = triton_kernels.plan_backward(
        grad.contiguous(), grad_last.contiguous(), *inputs
    )
    for launch in launches:
        launch()
    return dk, dv, dw.sum(0), du.sum(0), dstate


complete(forward, backward)
