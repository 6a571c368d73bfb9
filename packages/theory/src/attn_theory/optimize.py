"""The two optimisers of the experiments: Adam with a cosine, and L-BFGS."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class CosineAdam:
    """Adam whose rate falls from `lr` to 0 as half a cosine.

    Args:
        parameters: what is trained.
        lr: rate of the first step.
        steps: after which the rate is 0.
        constant: whether the rate stays at lr.

    Example:
        >>> x = torch.ones(1, requires_grad=True)
        >>> adam = CosineAdam([x], lr=0.1, steps=2)
        >>> adam.step((x**2).sum())
        >>> round(x.item(), 2)
        0.9
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, steps: int, constant: bool = False
    ):
        self.optimizer = torch.optim.Adam(list(parameters), lr=lr, fused=True)
        self.lr, self.steps, self.constant = lr, steps, constant
        self.done = 0

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of a scalar."""
        share = 1.0 if self.constant else 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
        self.optimizer.param_groups[0]["lr"] = self.lr * share
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1


def lbfgs(parameters: Iterable[Tensor], loss: Callable[[], Tensor], iterations: int) -> float:
    """Minimises a deterministic loss in place, with a strong Wolfe line search; the loss reached.

    Args:
        parameters: leaves that require gradients.
        loss: a scalar, computed anew from the parameters.
        iterations: at most.

    Example:
        >>> x = torch.zeros(1, requires_grad=True)
        >>> round(lbfgs([x], lambda: (x - 3).square().sum(), 20), 6)
        0.0
    """
    optimizer = torch.optim.LBFGS(
        list(parameters), max_iter=iterations, history_size=30, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return float(loss().detach())
