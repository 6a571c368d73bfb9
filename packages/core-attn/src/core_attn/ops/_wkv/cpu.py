"""wkv on a CPU: the C kernel as an operator of torch."""

import torch
from torch import Tensor

from .._along_tokens import native
from .._recompute import twice_differentiable
from . import reference
from .call import WkvCall

Call = native.structure(
    "Wkv",
    ("batch", "tokens", "channels"),
    ("k", "v", "w", "u", "state", "out", "last", "grad", "grad_last", "dk", "dv", "dw", "du",
     "dstate"),
)  # fmt: skip
INPUTS = "Tensor k, Tensor v, Tensor log_decay, Tensor bonus, Tensor state"


def run(call: WkvCall) -> tuple[Tensor, Tensor]:
    """The kernel takes rows of channels side by side."""
    return derived(call, *forward(*(x.contiguous() for x in call)))


FLOATS = ("k", "v", "log_decay", "bonus", "state")


def derived(call: WkvCall, out: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """What a kernel made of the call, second derivatives through the definition."""
    return (
        twice_differentiable(out, "wkv", lambda c: reference.run(c)[0], call, FLOATS),
        twice_differentiable(last, "wkv", lambda c: reference.run(c)[1], call, FLOATS),
    )


def refuses(call: WkvCall) -> str | None:
    """It takes float32 on a CPU with a C compiler, or a prebuilt kernel."""
    return native.refuses(call.k)


def reluctant(call: WkvCall) -> str | None:
    """It leaves exports to torch's own operators."""
    return native.exported()


@torch.library.custom_op(
    "core_attn::wkv", mutates_args=(), device_types="cpu", schema=f"({INPUTS}) -> (Tensor, Tensor)"
)
def forward(k, v, log_decay, bonus, state):
    """Means and the state after them."""
    out, last = torch.empty_like(k), torch.empty_like(state)
    batch, tokens, channels = k.shape
    native.run(
        "core_attn_wkv", Call(), 0, batch=batch, tokens=tokens, channels=channels, k=k, v=v,
        w=log_decay, u=bonus, state=state, out=out, last=last,
    )  # fmt: skip
    return out, last


@torch.library.custom_op(
    "core_attn::wkv_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor grad, Tensor grad_last, {INPUTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def backward(grad, grad_last, k, v, log_decay, bonus, state):
    """Gradients of all inputs; those of decay and bonus are summed over the texts."""
    batch, tokens, channels = k.shape
    dk, dv, dstate = torch.empty_like(k), torch.empty_like(v), torch.empty_like(state)
    dw, du = k.new_empty(2, batch, channels)
    native.run(
        "core_attn_wkv", Call(), 1, batch=batch, tokens=tokens, channels=channels, k=k, v=v,
        w=log_decay, u=bonus, state=state, grad=grad.contiguous(),
        grad_last=grad_last.contiguous(), dk=dk, dv=dv, dw=dw, du=du, dstate=dstate,
    )  # fmt: skip
    return dk, dv, dw.sum(0), du.sum(0), dstate


def complete(forward, backward) -> None:
    """Tells torch what two operators of this schema give, and that one derives the other."""

    @forward.register_fake
    def _(k, v, log_decay, bonus, state):
        return torch.empty_like(k), torch.empty_like(state)

    @backward.register_fake
    def _(grad, grad_last, k, v, log_decay, bonus, state):
        return tuple(torch.empty_like(x) for x in (k, v, log_decay, bonus, state))

    def save(ctx, inputs, output) -> None:
        ctx.set_materialize_grads(False)  # none comes where the definition is derived in its place
        ctx.save_for_backward(*inputs)

    def differentiate(ctx, grad, grad_last):
        k, *_, state = ctx.saved_tensors
        if grad is None and grad_last is None:
            return (None,) * 5
        grads = native.filled((grad, k), (grad_last, state))
        return backward(*grads, *ctx.saved_tensors)

    forward.register_autograd(differentiate, setup_context=save)
    backward.register_autograd(native.once("wkv"))


complete(forward, backward)
