"""Adagrad with one accumulator per row of a table."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from . import rows


class RowAdagrad(torch.optim.Optimizer):
    """acc_row += mean(g_row^2), row -= lr g_row / (sqrt(acc_row) + eps), for the rows of the batch.

    The state is one number per row instead of two per element. Gradients must be sparse.

    Args:
        params: tables.
        lr: step size.
        initial: where the accumulators start.
        eps: added to the root.

    Source: Duchi et al., 2011, JMLR 12, for Adagrad; row-wise as in Naumov et al., 2019,
    "Deep Learning Recommendation Model", arXiv 1906.00091.

    Example:
        >>> table = torch.nn.Embedding(4, 2, sparse=True)
        >>> optimizer = RowAdagrad(table.parameters(), lr=0.1)
        >>> table(torch.tensor([1])).sum().backward(); optimizer.step()
    """

    def __init__(self, params: Iterable, lr: float = 1e-2, initial: float = 0.0, eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "initial": initial, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Updates the rows that have a gradient.

        Raises:
            ValueError: a gradient is dense.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sorted_ids: dict = {}
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if not weight.grad.is_sparse:
                    raise ValueError("RowAdagrad needs sparse gradients; make tables sparse=True")
                state = self.state[weight]
                if not state:
                    state["sum"] = weight.new_full((len(weight),), group["initial"])
                if rows.serves(weight):
                    call = rows.Adagrad(lr=group["lr"], eps=group["eps"])
                    tensors = {"total": state["sum"], **rows.ordered(weight.grad, sorted_ids)}
                    rows.run("attn_recsys_adagrad", call, weight, **tensors)
                    continue
                grad = weight.grad.coalesce()
                at, values = grad.indices()[0], grad.values()
                total = state["sum"][at].add_(values.square().mean(1))
                state["sum"][at] = total
                move = values / total.sqrt_().add_(group["eps"])[:, None]
                weight.index_add_(0, at, move, alpha=-group["lr"])
        return loss
