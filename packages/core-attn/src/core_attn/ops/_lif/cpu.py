"""lif on a CPU: the C kernel as an operator of torch."""

import torch
from torch import Tensor

from .._along_tokens import native
from .._recompute import twice_differentiable
from . import reference
from .call import LifCall

Call = native.structure(
    "Lif",
    ("batch", "tokens", "channels"),
    ("x", "state", "spikes", "last", "grad", "grad_last", "dx", "dstate"),
    ("tau", "threshold"),
)
INPUTS = "Tensor x, Tensor state, float tau, float threshold"


def run(call: LifCall) -> tuple[Tensor, Tensor]:
    """The kernel takes float32, rows of channels side by side."""
    x = call.x.float().contiguous()
    spikes, last = forward(x, call.state.contiguous(), call.tau, call.threshold)
    return derived(call, spikes.to(call.x.dtype), last)


FLOATS = ("x", "state")


def derived(call: LifCall, out: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """What a kernel made of the call, second derivatives through the definition."""
    return (
        twice_differentiable(out, "lif", lambda c: reference.run(c)[0], call, FLOATS),
        twice_differentiable(last, "lif", lambda c: reference.run(c)[1], call, FLOATS),
    )


def refuses(call: LifCall) -> str | None:
    """It takes all but float64 on a CPU with a C compiler, or a prebuilt kernel."""
    return native.refuses(call.x)


def reluctant(call: LifCall) -> str | None:
    """It leaves exports to torch's own operators."""
    return native.exported()


@torch.library.custom_op(
    "core_attn::lif", mutates_args=(), device_types="cpu", schema=f"({INPUTS}) -> (Tensor, Tensor)"
)
def forward(x, state, tau, threshold):
    """Spikes and the membranes after them."""
    spikes, last = torch.empty_like(x), torch.empty_like(state)
    batch, tokens, channels = x.shape
    native.run(
        "core_attn_lif", Call(), 0, batch=batch, tokens=tokens, channels=channels, x=x,
        state=state, spikes=spikes, last=last, tau=tau, threshold=threshold,
    )  # fmt: skip
    return spikes, last


@torch.library.custom_op(
    "core_attn::lif_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor grad, Tensor grad_last, {INPUTS}) -> (Tensor, Tensor)",
)
def backward(grad, grad_last, x, state, tau, threshold):
    """Gradients of currents and membranes."""
    dx, dstate = torch.empty_like(x), torch.empty_like(state)
    batch, tokens, channels = x.shape
    native.run(
        "core_attn_lif", Call(), 1, batch=batch, tokens=tokens, channels=channels, x=x,
        state=state, grad=grad.contiguous(), grad_last=grad_last.contiguous(), dx=dx,
        dstate=dstate, tau=tau, threshold=threshold,
    )  # fmt: skip
    return dx, dstate


def complete(forward, backward) -> None:
    """Tells torch what two operators of this schema give, and that one derives the other."""

    @forward.register_fake
    def _(x, state, tau, threshold):
        return torch.empty_like(x), torch.empty_like(state)

    @backward.register_fake
    def _(grad, grad_last, x, state, tau, threshold):
        return torch.empty_like(x), torch.empty_like(state)

    def save(ctx, inputs, output) -> None:
        ctx.set_materialize_grads(False)  # none comes where the definition is derived in its place
        ctx.save_for_backward(*inputs[:2])
        ctx.rest = inputs[2:]

    def differentiate(ctx, grad, grad_last):
        x, state = ctx.saved_tensors
        if grad is None and grad_last is None:
            return (None,) * 4
        grads = native.filled((grad, x), (grad_last, state))
        return *backward(*grads, x, state, *ctx.rest), None, None

    forward.register_autograd(differentiate, setup_context=save)
    backward.register_autograd(native.once("lif"))


complete(forward, backward)
