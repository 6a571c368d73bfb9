"""Losses that layers add to the task's own, as router balance."""

from typing import Any

import torch
from torch import Tensor, distributed, nn


class AuxiliaryLoss(nn.Module):
    """The place where a layer leaves a scalar loss, to be collected by `losses`.

    Args:
        weight: factor with which it enters the total.

    Example:
        >>> import torch
        >>> class Router(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.balance = AuxiliaryLoss(weight=0.01)
        ...     def forward(self, x):
        ...         self.balance(x.mean().square())
        ...         return x
        >>> router = Router()
        >>> _ = router(torch.ones(3))
        >>> losses(router)
        {'balance': tensor(0.0100)}
    """

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight
        self.value: Tensor | None = None

    def forward(self, value: Tensor) -> None:
        """Keeps the loss of this forward pass, in training and evaluation, but not in an export."""
        self.value = None if torch.compiler.is_exporting() else value

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no loss; a tensor with gradients would forbid it."""
        return self.__dict__ | {"value": None}


def losses(model: nn.Module) -> dict[str, Tensor]:
    """Takes the weighted auxiliary losses of the last forward pass, by module name.

    Each is handed out once, so a loss of an earlier pass never enters a later step.
    """
    taken = {}
    for name, module in model.named_modules():
        if isinstance(module, AuxiliaryLoss) and module.value is not None:
            taken[name] = module.weight * module.value
            module.value = None
    return taken


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of a tensor without gradient over all processes, each of which has to call this.

    A loss that is no mean over samples, as a product of means, is that of one process if all
    factors but one are: the trainer's mean of gradients does the rest.

    Example:
        >>> import torch
        >>> mean_over_processes(torch.tensor([0.5, 0.5]))
        tensor([0.5000, 0.5000])
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    total = x.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
