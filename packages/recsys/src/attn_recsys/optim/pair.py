"""One optimiser for the tables and one for the network, used as one."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..models.embedding import FieldEmbedding
from .deferred import DeferredAdam
from .dense import AdagradTF, AdamTF
from .rowwise import RowAdagrad

Name = Literal["adam_tf", "adam", "adagrad_tf", "deferred_adam", "lazy_adam", "row_adagrad"]
NAMES: tuple[Name, ...] = get_args(Name)
SPARSE = ("deferred_adam", "lazy_adam", "row_adagrad")


class Pair(torch.optim.Optimizer):
    """Steps two optimisers together; its groups are those of both.

    Args:
        table: of the tables.
        network: of everything else.

    Example:
        >>> table, network = torch.nn.Embedding(4, 2, sparse=True), torch.nn.Linear(2, 1)
        >>> both = Pair(RowAdagrad(table.parameters()), AdamTF(network.parameters()))
        >>> network(table(torch.tensor([1]))).sum().backward(); both.step()
    """

    def __init__(self, table: torch.optim.Optimizer, network: torch.optim.Optimizer):
        self.table, self.network = table, network
        groups = [*table.param_groups, *network.param_groups]
        super().__init__([{"params": group["params"]} for group in groups], {})
        self.param_groups = groups

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Runs the closure once, then both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.table.step()
        self.network.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"table": self.table.state_dict(), "network": self.network.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues both."""
        self.table.load_state_dict(state_dict["table"])
        self.network.load_state_dict(state_dict["network"])
        self.param_groups = [*self.table.param_groups, *self.network.param_groups]


def for_processes(table: Name) -> Name:
    """The optimizer of the tables that gives the same numbers in several processes.

    Raises:
        ValueError: there is none.

    Example:
        >>> for_processes("deferred_adam")
        'adam_tf'
    """
    if table == "deferred_adam":
        return "adam_tf"
    if table in SPARSE:
        dense = ", ".join(name for name in NAMES if name not in SPARSE)
        raise ValueError(
            f"optimizer {table} is for one process; with several take one of deferred_adam, {dense}"
        )
    return table


def make_optimizer(
    model: nn.Module,
    table: Name = "deferred_adam",
    *,
    lr: float = 1e-3,
    table_lr: float | None = None,
    table_weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """The optimiser of a click model.

    Args:
        model: with tables made `sparse` exactly where `table` is one of the sparse ones.
        table: of the tables. "adam_tf": dense Adam in TensorFlow's form; "adam": torch's;
            "adagrad_tf"; "deferred_adam": the numbers of "adam_tf" at the price of the batch's
            rows; "lazy_adam": moments of absent rows stand still; "row_adagrad". The network has
            the dense one of the same family, and Adam in TensorFlow's form beside a sparse one.
        lr: step size of the network.
        table_lr: of the tables; as the network's if None.
        table_weight_decay: L2 on the tables, for the dense optimisers that torch defines it for.

    Raises:
        ValueError: no such optimiser, or the tables' gradients are of the wrong kind.
    """
    tables = [module for module in model.modules() if isinstance(module, FieldEmbedding)]
    if table not in NAMES:
        raise ValueError(f"table must be one of {', '.join(NAMES)}, got {table!r}")
    if any(one.sparse != (table in SPARSE) for one in tables):
        wanted = "sparse=True" if table in SPARSE else "sparse=False"
        raise ValueError(f"{table} needs tables made with {wanted}")
    if table_weight_decay and table != "adam":
        raise ValueError(f"table_weight_decay is for table optimiser 'adam', not {table!r}")
    weights = [one.weight for one in tables]
    ids = set(map(id, weights))
    rest = [p for p in model.parameters() if id(p) not in ids]
    table_lr = lr if table_lr is None else table_lr
    if table in SPARSE:
        sparse: torch.optim.Optimizer
        if table == "deferred_adam":
            sparse = DeferredAdam(tables, lr=table_lr)
        elif table == "lazy_adam":
            sparse = torch.optim.SparseAdam(weights, lr=table_lr)
        else:
            sparse = RowAdagrad(weights, lr=table_lr)
        return Pair(sparse, AdamTF(rest, lr=lr)) if rest else sparse
    groups = [{"params": weights, "lr": table_lr}, {"params": rest}]
    if table == "adam":
        groups[0]["weight_decay"] = table_weight_decay
        return torch.optim.Adam(groups, lr=lr, fused=True)
    return AdamTF(groups, lr=lr) if table == "adam_tf" else AdagradTF(groups, lr=lr)
