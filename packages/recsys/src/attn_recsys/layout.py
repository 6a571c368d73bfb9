"""How the fields of a row lie in the ids, the values and the shared table."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Names and places of the fields.

    A row is `slots` ids and `slots` values. A field has one slot, or several where it is
    multi-valued; its ids lie in [first, first + size) of one table with `rows` rows.

    Attributes:
        names: the fields, in the order in which the model sees them.
        widths: slots of each field.
        firsts: first table row of each field.
        sizes: table rows of each field.
        rows: rows of the table; row 0 is the padding of multi-valued fields and unused otherwise.
        numerical: the fields whose value is a number; the others have value 1, or 0 where missing.
        attends: pairs of a field that is a history and the field that it is attended with, both of
            the same table rows.

    Example:
        >>> Layout(("user", "age"), (1, 1), (1, 5), (4, 1), 6, ("age",)).fields
        2
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    firsts: tuple[int, ...]
    sizes: tuple[int, ...]
    rows: int
    numerical: tuple[str, ...] = ()
    attends: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        for name in ("names", "widths", "firsts", "sizes", "numerical"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists, when read from JSON
        object.__setattr__(self, "attends", tuple((a, b) for a, b in self.attends))
        lengths = {len(part) for part in (self.names, self.widths, self.firsts, self.sizes)}
        if lengths != {len(self.names)} or not self.names:
            raise ValueError(
                "names, widths, firsts and sizes must have one entry per field, got "
                f"{len(self.names)}, {len(self.widths)}, {len(self.firsts)}, {len(self.sizes)}"
            )
        if min(self.widths) < 1:
            raise ValueError(f"widths must be >= 1, got {self.widths}")
        for name, first, size in zip(self.names, self.firsts, self.sizes, strict=True):
            if first < 0 or size < 1 or first + size > self.rows:
                raise ValueError(
                    f"field {name}: rows {first} to {first + size - 1} do not lie in a table of "
                    f"{self.rows} rows"
                )
        unknown = set(self.numerical) - set(self.names)
        if unknown:
            raise ValueError(f"numerical names unknown fields {sorted(unknown)}")
        for pair in self.attends:
            if set(pair) - set(self.names):
                raise ValueError(f"attends names unknown fields, got {pair}")

    @classmethod
    def plain(cls, fields: int, rows: int, widths: tuple[int, ...] | None = None) -> "Layout":
        """Unnamed fields f0, f1, ... that may each use any row.

        Example:
            >>> Layout.plain(3, rows=10).names
            ('f0', 'f1', 'f2')
        """
        names = tuple(f"f{i}" for i in range(fields))
        return cls(names, widths or (1,) * fields, (0,) * fields, (rows,) * fields, rows)

    @property
    def fields(self) -> int:
        """Number of fields."""
        return len(self.names)

    @property
    def slots(self) -> int:
        """Number of ids of a row."""
        return sum(self.widths)

    def slot_names(self) -> list[str]:
        """The field of every slot."""
        return [n for n, w in zip(self.names, self.widths, strict=True) for _ in range(w)]

    def check(self, index: Int[Tensor, "batch slots"], value: Float[Tensor, "batch slots"]) -> None:
        """Requires ids inside their field's rows (or padding) and finite values.

        Raises:
            TypeError: ids are floats.
            ValueError: an id or a value that does not fit, with its field.

        Example:
            >>> layout = Layout(("C7",), (1,), (1,), (4,), 5)
            >>> layout.check(torch.tensor([[9]]), torch.ones(1, 1))
            Traceback (most recent call last):
            ValueError: field C7: index 9 outside its rows 1 to 4 (vocabulary of size 4), in row 0
        """
        if index.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"index must be int32 or int64 ids, got {index.dtype}")
        for name, x in (("index", index), ("value", value)):
            if x.dim() != 2 or x.shape[1] != self.slots:
                raise ValueError(f"{name} must be (batch, {self.slots}), got {tuple(x.shape)}")
        slots = self.slot_names()
        first = torch.tensor(self.firsts).repeat_interleave(torch.tensor(self.widths))
        last = first + torch.tensor(self.sizes).repeat_interleave(torch.tensor(self.widths)) - 1
        wrong = ((index < first) | (index > last)) & (value != 0)
        wrong |= (index < 0) | (index >= self.rows)
        if wrong.any():
            row, slot = (int(i) for i in wrong.nonzero()[0])
            low, high = int(first[slot]), int(last[slot])
            raise ValueError(
                f"field {slots[slot]}: index {int(index[row, slot])} outside its rows {low} to "
                f"{high} (vocabulary of size {high - low + 1}), in row {row}"
            )
        finite = value.isfinite()
        if not finite.all():
            row, slot = (int(i) for i in (~finite).nonzero()[0])
            raise ValueError(
                f"field {slots[slot]} has {float(value[row, slot])} in row {row}; "
                "set missing='zero' to treat it as missing"
            )
