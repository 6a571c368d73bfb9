"""The tensors of a call of neighborhood attention as the fields of one record."""

from typing import NamedTuple

from torch import Tensor

from . import reference
from .call import NeighborhoodCall


class Tensors(NamedTuple):
    """What has a gradient, and the call."""

    q: Tensor
    k: Tensor
    v: Tensor
    table0: Tensor | None
    table1: Tensor | None
    table2: Tensor | None
    slot_bias: Tensor | None
    global_k: Tensor | None
    global_v: Tensor | None
    global_bias: Tensor | None
    added: Tensor | None
    call: NeighborhoodCall

    @classmethod
    def of(cls, call: NeighborhoodCall) -> "Tensors":
        """The tensors of a call."""
        first, second, third, *_ = (*(call.relative or ()), None, None, None)
        return cls(
            call.q, call.k, call.v, first, second, third, call.slot_bias, call.global_k,
            call.global_v, call.global_bias, call.added, call,
        )  # fmt: skip

    def define(self) -> Tensor:
        """Neighborhood attention of these tensors by its definition."""
        tables = tuple(x for x in (self.table0, self.table1, self.table2) if x is not None)
        given = {name: getattr(self, name) for name in FLOATS if not name.startswith("table")}
        return reference.run(self.call._replace(relative=tables or None, **given))


FLOATS = Tensors._fields[:-1]
