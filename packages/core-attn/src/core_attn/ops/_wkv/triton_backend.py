"""wkv on a GPU: the Triton kernels as an operator of torch."""

import torch
from torch import Tensor

from .._along_tokens import native, triton_host
from .call import WkvCall
from .cpu import INPUTS, derived


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


@forward.register_fake
def _(k, v, log_decay, bonus, state):
    return torch.empty_like(k), torch.empty_like(state)


@backward.register_fake
def _(grad, grad_last, *inputs):
    return tuple(torch.empty_like(x) for x in inputs)


def _save(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)  # none comes where the definition is derived in its place
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad, grad_last):
    k, *_, state = ctx.saved_tensors
    if grad is None and grad_last is None:
        return (None,) * 5
    grads = native.filled((grad, k), (grad_last, state))
    return backward(*grads, *ctx.saved_tensors)


forward.register_autograd(_differentiate, setup_context=_save)
backward.register_autograd(native.once("wkv"))
