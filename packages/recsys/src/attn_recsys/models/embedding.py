"""One table for all fields."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..layout import Layout
from .history import TargetAttention


def lookup(
    weight: Float[Tensor, "rows dim"],
    index: Int[Tensor, "*slots"],
    value: Float[Tensor, "*slots"],
    *,
    sparse: bool = False,
) -> Float[Tensor, "*slots dim"]:
    """Rows of a table times their values.

    Example:
        >>> lookup(torch.eye(3), torch.tensor([2]), torch.tensor([0.5]))
        tensor([[0.0000, 0.0000, 0.5000]])
    """
    return F.embedding(index, weight, sparse=sparse) * value[..., None]


class FieldEmbedding(nn.Module):
    """Looks up every field in one shared table and scales it by its value.

    A missing field has value 0 and becomes the zero vector. A multi-valued field is the weighted
    mean of its values, the zero vector where it has none; so is a history, unless `attend` weighs
    its values by the row's target (`TargetAttention`).

    Args:
        layout: the fields.
        dim: features of a field.
        sparse: whether the table's gradient is sparse, for the optimisers that touch only the
            rows of the batch.
        attend: whether the layout's histories are attended with their targets.
        pooling: whether a multi-valued field is its values' "mean", or their "sum".

    Its attributes `lookup(weight, index, value)`, which reads the rows of a batch, and
    `present(weight)`, which gives the whole table to a state dict, are for an optimiser that moves
    rows only when they are read: it puts its own there.

    Source: Song et al., 2019, "AutoInt", arXiv 1810.11921, eq. (2) to (4).

    Example:
        >>> embed = FieldEmbedding(Layout.plain(2, rows=5), dim=3)
        >>> embed(torch.tensor([[1, 4]]), torch.tensor([[1.0, 0.0]]))[0, 1].abs().sum().item()
        0.0
    """

    def __init__(
        self,
        layout: Layout,
        dim: int,
        *,
        sparse: bool = False,
        attend: bool = False,
        pooling: Literal["mean", "sum"] = "mean",
    ):
        super().__init__()
        self.layout, self.pooling = layout, pooling
        places = {name: i for i, name in enumerate(layout.names)}
        self.targets = {places[a]: places[b] for a, b in layout.attends} if attend else {}
        self.readers = nn.ModuleDict({str(i): TargetAttention(dim) for i in self.targets})
        self.sparse = sparse
        self.lookup: Callable[[Tensor, Tensor, Tensor], Tensor] = partial(lookup, sparse=sparse)
        self.present: Callable[[Tensor], Tensor] = torch.detach
        self.weight = nn.Parameter(torch.empty(layout.rows, dim))
        nn.init.normal_(self.weight, std=0.01)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not keep_vars:
            destination[f"{prefix}weight"] = self.present(self.weight)

    def forward(
        self, index: Int[Tensor, "batch slots"], value: Float[Tensor, "batch slots"]
    ) -> Float[Tensor, "batch fields dim"]:
        """Returns the fields' vectors.

        Raises:
            TypeError: ids are floats.
            ValueError: shapes differ from the layout.
        """
        if index.dtype.is_floating_point:
            raise TypeError(f"index must be int32 or int64 ids, got {index.dtype}")
        if index.shape[1:] != (self.layout.slots,) or value.shape != index.shape:
            raise ValueError(
                f"index and value must be (batch, {self.layout.slots}), got "
                f"{tuple(index.shape)} and {tuple(value.shape)}"
            )
        value = value.to(self.weight.dtype)
        slots = self.lookup(self.weight, index, value)
        if self.layout.fields == self.layout.slots:
            return slots
        widths = self.layout.widths
        parts, weights = slots.split(widths, 1), value.split(widths, 1)
        fields = [
            part[:, 0] if width == 1 else self._pooled(part, weight)
            for width, part, weight in zip(widths, parts, weights, strict=True)
        ]
        for i, target in self.targets.items():
            fields[i] = self.readers[str(i)](fields[target], parts[i], weights[i] != 0)
        return torch.stack(fields, 1)

    def _pooled(self, scaled: Tensor, weight: Tensor) -> Tensor:
        if self.pooling == "sum":
            return scaled.sum(1)
        total = weight.sum(1, keepdim=True)
        return scaled.sum(1) / torch.where(total == 0, torch.ones_like(total), total)
