"""Renaming of state dicts by a table of templates, both ways."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

Table = Iterable[tuple[str, str]]


def renamed(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """The tensors under new names.

    Args:
        state: tensors by their old names.
        table: pairs of old and new name; "{x}" stands for a part without dots, "{x*}" for the rest.

    Raises:
        ValueError: a name fits no template.

    Example:
        >>> import torch
        >>> one = torch.ones(1)
        >>> list(renamed({"h.3.fc.bias": one}, [("h.{i}.fc.{p}", "blocks.{i}.up.{p}")]))
        ['blocks.3.up.bias']
    """
    rules = [(_pattern(old), new.replace("*}", "}")) for old, new in table]
    out, unknown = {}, []
    for name, tensor in state.items():
        for pattern, new in rules:
            if match := pattern.fullmatch(name):
                out[new.format(**match.groupdict())] = tensor
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(f"unknown keys in the checkpoint: {', '.join(unknown[:6])}")
    return out


def reverse(table: Table) -> list[tuple[str, str]]:
    """The table that renames back."""
    return [(new, old) for old, new in table]


def require(state: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Requires keys to be in a checkpoint.

    Raises:
        ValueError: some are missing; the message names them.
    """
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"missing keys in the checkpoint: {', '.join(missing[:6])}")


def count(state: Mapping[str, Tensor], template: str) -> int:
    """How many values "{i}" takes among the names, counted from 0.

    Example:
        >>> import torch
        >>> count({"h.0.w": torch.ones(1), "h.1.w": torch.ones(1)}, "h.{i}.w")
        2
    """
    pattern = _pattern(template)
    found = {match["i"] for name in state if (match := pattern.fullmatch(name))}
    return len(found)


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+\*?)\}", template)
    out = [re.escape(parts[0])]
    for name, literal in zip(parts[1::2], parts[2::2], strict=True):
        out.append(f"(?P<{name[:-1]}>.+)" if name.endswith("*") else rf"(?P<{name}>[^.]+)")
        out.append(re.escape(literal))
    return re.compile("".join(out))
