"""Second derivatives of kernels that have none: the definition, computed again."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._dispatch import Choice, note_choice

NOTE = "recomputed for a second derivative"


def twice_differentiable(
    out: Tensor, operator: str, define: Callable[[Any], Tensor], call: Any, floats: Sequence[str]
) -> Tensor:
    """`out` with the gradient it has, which itself is differentiated through the definition.

    Args:
        out: what a kernel made of the call.
        operator: its name, for `why`.
        define: computes the same from the call with torch's own operators.
        call: the operator's call tuple.
        floats: the fields of `call` that have a gradient.
    """
    if not _may_be_derived(out):
        return out
    tensors = [getattr(call, name) for name in floats]
    rest = call._replace(**dict.fromkeys(floats))

    def again(*tensors: Tensor | None) -> Tensor:
        note_choice(Choice(operator, "reference", False, note=NOTE))
        return define(rest._replace(**dict(zip(floats, tensors, strict=True))))

    return _Recomputed.apply(out, again, *tensors)  # type: ignore[no-any-return]


def recomputed(out: Tensor, again: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
    """`out` with the gradient it has, which itself is differentiated through `again(*tensors)`."""
    return _Recomputed.apply(out, again, *tensors) if _may_be_derived(out) else out  # type: ignore[no-any-return]


def _may_be_derived(out: Tensor) -> bool:
    return not torch.compiler.is_compiling() and torch.is_grad_enabled() and out.requires_grad


def gradients(
    again: Callable[..., Tensor], tensors: Sequence[Tensor | None], grad: Tensor
) -> list[Tensor | None]:
    """Gradients of `tensors`, differentiable, through `again(*tensors)`."""
    with torch.enable_grad():
        # One tensor may stand in several places: each gets an alias, and a gradient, of its own.
        aliases = [None if x is None else x.view_as(x) for x in tensors]
        wanted = [x for x in aliases if x is not None and x.requires_grad]
        # One token's decay, say, reaches no output.
        all_found = torch.autograd.grad(
            again(*aliases), wanted, grad, create_graph=True, allow_unused=True
        )
        found = iter(all_found)
    return [next(found) if x is not None and x.requires_grad else None for x in tensors]


class _Recomputed(torch.autograd.Function):
    """Hands a gradient on to the kernel's backward, or takes its place if it is to be derived."""

    @staticmethod
    def forward(ctx, out: Tensor, again: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
        ctx.again = again
        ctx.save_for_backward(*tensors)
        return out.view_as(out)

    @staticmethod
    def backward(ctx, grad: Tensor):
        if not torch.is_grad_enabled():
            return grad, None, *(None for _ in ctx.saved_tensors)
        return None, None, *gradients(ctx.again, ctx.saved_tensors, grad)
