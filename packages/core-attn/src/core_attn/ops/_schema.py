"""The arguments of a kernel as one record, from which torch's schema of its operator follows."""

import typing
from typing import Any

from torch import Tensor

TYPES = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    list[int] | None: "int[]?",
    bool: "bool",
    int: "int",
    float: "float",
}


def schema_of(record: type[Any]) -> str:
    """The fields of a NamedTuple as the arguments of a schema.

    Example:
        >>> from typing import NamedTuple
        >>> schema_of(NamedTuple("Pair", [("x", Tensor), ("bias", Tensor | None)]))
        'Tensor x, Tensor? bias'
    """
    hints = typing.get_type_hints(record)
    return ", ".join(f"{TYPES[hints[name]]} {name}" for name in record._fields)


def gradients_of(record: type[Any], **found: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients by name in the order of the fields, None for the others."""
    return tuple(found.get(name) for name in record._fields)
