"""Problems that no short kernel takes: `attention` on the padded batch."""

import torch
from torch import Tensor

from .._attention.operator import BACKENDS
from .._dispatch import dispatch
from . import reference
from .call import ShortCall

DIFFERENTIABLE = ("q", "k", "v", "bias", "head_gate")


def run(call: ShortCall) -> Tensor:
    """Pads packed problems to the longest one and lets `attention` choose its backend."""
    floats = [getattr(call, name) for name in DIFFERENTIABLE]
    learning = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in floats)
    # With dropout, SDPA on a CPU is made of differentiable parts, and no second run would agree.
    if learning and call.q.device.type == "cpu" and not call.dropout:
        if not torch.compiler.is_compiling():
            return _Twice.apply(call, *floats)
    return _attend(call)


def refuses(call: ShortCall) -> str | None:
    """It takes everything outside of `torch.func`, whose transforms may be nested."""
    return "torch.func cannot transform its backward" if call.under_torch_func else None


def _attend(call: ShortCall) -> Tensor:
    return call.unpadded(dispatch("attention", BACKENDS, call.as_attention()))


class _Twice(torch.autograd.Function):
    """`_attend` with a backward that can be differentiated: SDPA's fused one cannot."""

    @staticmethod
    def forward(ctx, call: ShortCall, *floats: Tensor | None) -> Tensor:
        ctx.save_for_backward(*floats)
        inner = [None if x is None else x.detach().requires_grad_(x.requires_grad) for x in floats]
        with torch.enable_grad():
            out = _attend(call._replace(**dict(zip(DIFFERENTIABLE, inner, strict=True))))
        # The tensors of the call are kept as saved ones only.
        ctx.call = call._replace(**dict.fromkeys(DIFFERENTIABLE))
        ctx.inner, ctx.out = inner, out
        return out.detach()

    @staticmethod
    def backward(ctx, grad: Tensor):
        floats, out = ctx.inner, ctx.out
        again = torch.is_grad_enabled()  # the caller wants to differentiate the gradient
        if again:
            floats = ctx.saved_tensors
            call = ctx.call._replace(**dict(zip(DIFFERENTIABLE, floats, strict=True)))
            out = reference.run(call)
        wanted = [x for x in floats if x is not None and x.requires_grad]
        grads = iter(torch.autograd.grad(out, wanted, grad, retain_graph=True, create_graph=again))
        return None, *(next(grads) if x is not None and x.requires_grad else None for x in floats)
