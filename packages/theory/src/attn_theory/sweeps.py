"""One experiment at every combination of values, in one table."""

import itertools
import typing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import tables
from .configure import base, parse, split
from .experiment import Experiment, Result

if TYPE_CHECKING:
    import polars as pl


def configurations(
    experiment: Experiment, changes: Sequence[str], *, quick: bool = False
) -> list[tuple[dict[str, Any], Any]]:
    """The swept fields and the configuration of every combination, the last field fastest.

    Args:
        experiment: whose.
        changes: each key=value,value; the values of a field that has several are kept together by
            commas and separated from others by semicolons.
        quick: whether the small form is changed.

    Raises:
        ValueError: no field to sweep, an unknown one, a value of the wrong type or out of range.

    Example:
        >>> from attn_theory.papers import find
        >>> swept = configurations(find("icl_linear.flow"), ["d=5,10", "noise=0.1,0.3"])
        >>> [tuple(change.values()) for change, _ in swept]
        [(5, 0.1), (5, 0.3), (10, 0.1), (10, 0.3)]
    """
    if not changes:
        raise ValueError(f"name what to sweep, as in `sweep {experiment.name} key=value,value`")
    config = base(experiment, quick)
    types = typing.get_type_hints(type(config))
    values: dict[str, list[Any]] = {}
    for item in changes:
        name, text = split(item, experiment)
        if name in values:
            raise ValueError(f"{name} is given twice")
        several = typing.get_origin(types[name]) is tuple
        texts = text.split(";" if several else ",")
        values[name] = [parse(part, types[name], name) for part in texts]
    out = []
    for combination in itertools.product(*values.values()):
        change = dict(zip(values, combination, strict=True))
        out.append((change, replace(config, **change)))
    return out


def table(
    experiment: Experiment, changes: Sequence[dict[str, Any]], results: Sequence[Result]
) -> "pl.DataFrame":
    """The tables of all results under each other, each row led by the values it was run with."""
    import polars as pl

    frames = []
    for change, result in zip(changes, results, strict=True):
        frame = tables.frame(experiment.tidy, result)
        led = [
            pl.lit(",".join(map(str, value)) if isinstance(value, tuple) else value).alias(name)
            for name, value in change.items()
            if name not in frame.columns
        ]
        frames.append(frame.select(*led, pl.all()))
    return pl.concat(frames, how="diagonal_relaxed")


def check_writable(path: Path) -> None:
    """Refuses a file that could not be written, before anything is measured."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}")


def check_folder(path: Path) -> None:
    """Refuses a folder that is, or lies in, a file."""
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise ValueError(f"{path} cannot be a folder: {part} is a file")
