"""Named configurations of models: one table per package, one way to change an entry."""

from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any, TypeVar

Config = TypeVar("Config")


def variant(table: Mapping[str, Config], name: str, /, **changes: Any) -> Config:
    """The configuration of a name, with changes; its `build()` makes the model.

    Args:
        table: a package's `VARIANTS`, from names to frozen dataclasses.
        name: a key of it.
        changes: fields that differ.

    Raises:
        ValueError: no model or no field has that name, or a changed value does not fit.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class NetConfig:
        ...     depth: int = 12
        ...     def build(self):
        ...         return f"a net of {self.depth} blocks"
        >>> variant({"net_small": NetConfig(depth=6)}, "net_small", depth=2).build()
        'a net of 2 blocks'
        >>> variant({"net_small": NetConfig()}, "net_smal")
        Traceback (most recent call last):
        ValueError: no model is named 'net_smal'; did you mean 'net_small'? there is net_small
    """
    if name not in table:
        known = ", ".join(sorted(table))
        there = f"there {'are' if len(table) > 1 else 'is'} {known}"
        raise ValueError(f"no model is named {name!r}{_hint(name, table)} {there}")
    config = table[name]
    allowed = [field.name for field in fields(config) if field.init]  # type: ignore[arg-type]
    for change in changes:
        if change not in allowed:
            raise ValueError(
                f"{name} has no setting {change!r}{_hint(change, allowed)} "
                f"settings: {', '.join(allowed)}"
            )
    return replace(config, **changes)  # type: ignore[type-var]


def _hint(wrong: str, known: Any) -> str:
    near = get_close_matches(wrong, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ";"
