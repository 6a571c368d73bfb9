"""lif on a GPU: the Triton kernels as an operator of torch."""

import torch
from torch import Tensor

from .._along_tokens import native, triton_host
from .call import LifCall
from .cpu import INPUTS, derived


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


@forward.register_fake
def _(x, state, tau, threshold):
    return torch.empty_like(x), torch.empty_like(state)


@backward.register_fake
def _(grad, grad_last, x, state, tau, threshold):
    return torch.empty_like(x), torch.empty_like(state)


def _save(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)  # none comes where the definition is derived in its place
    ctx.save_for_backward(*inputs[:2])
    ctx.rest = inputs[2:]


def _differentiate(ctx, grad, grad_last):
    x, state = ctx.saved_tensors
    if grad is None and grad_last is None:
        return (None,) * 4
    grads = native.filled((grad, x), (grad_last, state))
    return *backward(*grads, x, state, *ctx.rest), None, None


forward.register_autograd(_differentiate, setup_context=_save)
backward.register_autograd(native.once("lif"))
