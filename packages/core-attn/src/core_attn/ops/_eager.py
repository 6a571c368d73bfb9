"""The kernels' operators without torch's dispatcher, which can take longer than a kernel."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def untraced(x: Tensor) -> bool:
    """Whether nothing but autograd is to see what happens to `x`: no graph, mode or transform."""
    return (
        not torch.compiler.is_compiling()
        and type(x) in (Tensor, torch.nn.Parameter)
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
        and torch._C._get_tracing_state() is None
    )


def short_way(operator: Any) -> Callable[..., Any]:
    """Calls an operator of `torch.library.custom_op` directly where no derivative is asked for."""

    def call(*inputs: Any) -> Any:
        direct = untraced(inputs[0]) and not torch.is_grad_enabled()
        return (operator._init_fn if direct else operator)(*inputs)

    return call


def short_way_with_gradient(
    operator: Any, differentiate: Callable[..., Any], save: Callable[..., None]
) -> Callable[..., Any]:
    """Registers an operator's derivative, and returns a call that has it without the dispatcher.

    Args:
        operator: made by `torch.library.custom_op`, its first input a tensor.
        differentiate: as `register_autograd` takes it.
        save: its `setup_context`.
    """
    operator.register_autograd(differentiate, setup_context=save)

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            # Not by a setup_context, for which torch binds the arguments anew at every call.
            outputs = operator._init_fn(*inputs)
            save(ctx, inputs, outputs)
            return outputs

        backward = staticmethod(differentiate)

    without = short_way(operator)

    def call(*inputs: Any) -> Any:
        if untraced(inputs[0]) and torch.is_grad_enabled():
            return Direct.apply(*inputs)
        return without(*inputs)

    return call
