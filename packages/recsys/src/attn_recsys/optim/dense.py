"""Adam and Adagrad as TensorFlow 1 computes them."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class AdamTF(torch.optim.Adam):
    """Adam in TensorFlow's form: p -= lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps).

    torch.optim.Adam divides v by 1 - b2^t before it adds eps, which differs where gradients are
    near eps, as they are for embeddings that start near 0. Every row of a table moves in every
    step, also those absent from the batch.

    Args:
        params: parameters or groups of them.
        lr: step size.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.

    Source: Kingma and Ba, 2015, arXiv 1412.6980, the note below algorithm 1 (epsilon hat).

    Example:
        >>> p = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = AdamTF([p], lr=0.1)
        >>> p.sum().backward(); optimizer.step(); p.data
        tensor([0.9000, 0.9000])
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=True)
        for group in self.param_groups:
            group.setdefault("steps", 0)
            group["eps_tf"] = group["eps"]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates every parameter that has a gradient.

        torch computes sqrt(v) / sqrt(1 - b2^t) + eps: dividing its eps by the same root gives
        TensorFlow's form from the same fused kernel.
        """
        for group in self.param_groups:
            group["steps"] += 1
            group["eps"] = group["eps_tf"] / math.sqrt(1 - group["betas"][1] ** group["steps"])
        return super().step(closure)


class AdagradTF(torch.optim.Optimizer):
    """Adagrad in TensorFlow's form: acc += g^2, p -= lr g / sqrt(acc), without epsilon.

    Args:
        params: parameters or groups of them.
        lr: step size.
        initial: where the accumulators start; with 1e-8 the first step is lr times the sign.

    Source: Duchi et al., 2011, "Adaptive Subgradient Methods", JMLR 12.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = AdagradTF([p], lr=0.1)
        >>> p.sum().backward(); optimizer.step(); p.data
        tensor([0.9000, 0.9000])
    """

    def __init__(self, params: Iterable, lr: float = 1e-2, initial: float = 1e-8):
        if initial <= 0:
            raise ValueError(f"initial must be > 0, got {initial}")
        super().__init__(params, {"lr": lr, "initial": initial})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Updates every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["sum"] = torch.full_like(p, group["initial"])
                state["sum"].addcmul_(p.grad, p.grad)
                p.addcdiv_(p.grad, state["sum"].sqrt(), value=-group["lr"])
        return loss
