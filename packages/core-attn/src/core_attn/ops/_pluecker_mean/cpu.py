"""pluecker_mean on a CPU: the C kernel as an operator of torch."""

import torch
from torch import Tensor

from .._along_tokens import native
from .._recompute import twice_differentiable
from . import reference
from .call import PlueckerCall

Call = native.structure(
    "Pluecker",
    ("batch", "tokens", "dim", "count"),
    ("offsets", "z", "out", "grad", "dz"),
    ("eps",),
)
INPUTS = "Tensor z, int[] offsets, float eps"


def run(call: PlueckerCall) -> Tensor:
    """The kernel takes float32, rows of features side by side."""
    z = call.z.float().contiguous()
    return derived(call, forward(z, list(call.offsets), call.eps).to(call.z.dtype))


def derived(call: PlueckerCall, out: Tensor) -> Tensor:
    """What a kernel made of the call, second derivatives through the definition."""
    return twice_differentiable(out, "pluecker_mean", reference.run, call, ("z",))


def refuses(call: PlueckerCall) -> str | None:
    """It takes all but float64 on a CPU with a C compiler, or a prebuilt kernel."""
    return native.refuses(call.z)


def reluctant(call: PlueckerCall) -> str | None:
    """It leaves exports to torch's own operators."""
    return native.exported()


def _call(z: Tensor, places: Tensor, eps: float, pass_number: int, **arrays: Tensor) -> None:
    batch, tokens, dim = z.shape
    native.run(
        "core_attn_pluecker", Call(), pass_number, batch=batch, tokens=tokens, dim=dim,
        count=len(places), offsets=places, z=z, eps=eps, **arrays,
    )  # fmt: skip


@torch.library.custom_op(
    "core_attn::pluecker_mean", mutates_args=(), device_types="cpu", schema=f"({INPUTS}) -> Tensor"
)
def forward(z, offsets, eps):
    """The mean coordinates."""
    out = z.new_empty(*z.shape[:2], z.shape[2] * (z.shape[2] - 1) // 2)
    _call(z, torch.tensor(offsets), eps, 0, out=out)
    return out


@torch.library.custom_op(
    "core_attn::pluecker_mean_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor grad, {INPUTS}) -> Tensor",
)
def backward(grad, z, offsets, eps):
    """The gradient of the vectors."""
    dz = torch.empty_like(z)
    _call(z, torch.tensor(offsets), eps, 1, grad=grad.contiguous(), dz=dz)
    return dz


def complete(forward, backward) -> None:
    """Tells torch what two operators of this schema give, and that one derives the other."""

    @forward.register_fake
    def _(z, offsets, eps):
        return z.new_empty(*z.shape[:2], z.shape[2] * (z.shape[2] - 1) // 2)

    @backward.register_fake
    def _(grad, z, offsets, eps):
        return torch.empty_like(z)

    def save(ctx, inputs, output) -> None:
        ctx.set_materialize_grads(False)  # none comes where the definition is derived in its place
        ctx.save_for_backward(inputs[0])
        ctx.rest = inputs[1:]

    def differentiate(ctx, grad):
        if grad is None:
            return None, None, None
        return backward(grad, *ctx.saved_tensors, *ctx.rest), None, None

    forward.register_autograd(differentiate, setup_context=save)
    backward.register_autograd(native.once("pluecker_mean"))


complete(forward, backward)
