"""What an experiment measured as a tidy table: one row per number of the innermost kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl

    from .experiment import Arrays, Result


@dataclass(frozen=True)
class Tidy:
    """Which arrays make a table, and what their axes are.

    Attributes:
        columns: the names of each array's axes, separated by spaces; "" for a number.
        axes: where the labels of an axis are: the labels themselves, or the name of an array of
            the point, or of a field of the configuration; an axis without is numbered from 0.
        rename: other names for columns.

    Example:
        >>> from types import SimpleNamespace
        >>> part = {"heads": 2, "risk": np.array([[0.3, 0.4], [0.1, 0.2]])}
        >>> tidy = Tidy({"heads": "", "risk": "length seed"}, {"length": "lengths"})
        >>> tidy.rows(part, SimpleNamespace(lengths=(10, 20)))["length"].tolist()
        [10, 10, 20, 20]
    """

    columns: Mapping[str, str]
    axes: Mapping[str, str | Sequence[Any]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)

    def rows(self, part: "Arrays", config: Any) -> dict[str, np.ndarray]:
        """The columns of one point, the axes among them, each as long as there are rows.

        Raises:
            ValueError: an array has another number of axes than names, or two disagree in length.
        """
        sizes: dict[str, int] = {}
        for name, axes in self.columns.items():
            shape = np.shape(part[name])
            if len(shape) != len(axes.split()):
                raise ValueError(f"{name} has shape {shape}, its axes are {axes!r}")
            for axis, size in zip(axes.split(), shape, strict=True):
                if sizes.setdefault(axis, size) != size:
                    raise ValueError(f"{name}: axis {axis} is {size} long and {sizes[axis]}")
        shape = tuple(sizes.values())
        out: dict[str, np.ndarray] = {}
        place = list(sizes)
        for axis, size in sizes.items():
            out[axis] = self._spread(self._labels(axis, size, part, config), axis, place, shape)
        values = {
            self.rename.get(name, name): self._spread(np.asarray(part[name]), axes, place, shape)
            for name, axes in self.columns.items()
        }
        numbers = {name: value for name, value in values.items() if name not in out}
        # A point's own numbers come first: they say which point it is.
        first = {self.rename.get(n, n) for n, axes in self.columns.items() if not axes}
        return {n: v for n, v in numbers.items() if n in first} | out | numbers

    def _labels(self, axis: str, size: int, part: "Arrays", config: Any) -> np.ndarray:
        labels = self.axes.get(axis)
        if labels is None:
            return np.arange(size)
        if isinstance(labels, str):
            labels = part[labels] if labels in part else getattr(config, labels)
        return np.asarray(labels)[:size]

    @staticmethod
    def _spread(value: np.ndarray, axes: str, place: list[str], shape: tuple) -> np.ndarray:
        """The value repeated along the axes that it lacks, flat."""
        order = axes.split()
        value = value.transpose([order.index(axis) for axis in place if axis in order])
        view = [n if axis in order else 1 for axis, n in zip(place, shape, strict=True)]
        return np.broadcast_to(value.reshape(view), shape).ravel()


def frame(tidy: Tidy, result: "Result") -> "pl.DataFrame":
    """The table of a whole result.

    Example:
        >>> from attn_theory.experiment import Result
        >>> part = {"width": 4, "sup": np.array([0.2, 0.3])}
        >>> frame(Tidy({"width": "", "sup": "seed"}), Result("x", None, "k", [part], 1)).shape
        (2, 3)
    """
    import polars as pl

    frames = [pl.DataFrame(tidy.rows(part, result.config)) for part in result.parts]
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()


def summary(tidy: Tidy, table: "pl.DataFrame") -> "pl.DataFrame":
    """The table with repetitions averaged: means and their standard errors; else as it is.

    Example:
        >>> import polars as pl
        >>> tidy = Tidy({"width": "", "sup": "seed"})
        >>> table = pl.DataFrame({"width": [4, 4], "seed": [0, 1], "sup": [0.25, 0.75]})
        >>> summary(tidy, table).rows()
        [(4, 2, 0.5, 0.25)]
    """
    import polars as pl

    if "seed" not in table.columns:
        return table
    named = {tidy.rename.get(name, name): axes.split() for name, axes in tidy.columns.items()}
    keys = [name for name in table.columns if name != "seed" and not named.get(name)]
    out = [pl.len().alias("seeds")]
    for name, axes in named.items():
        if table[name].dtype == pl.String and axes:
            continue  # words have no mean
        if "seed" in axes and name != "error":
            mean = pl.col(name).mean()
            out += [mean, (pl.col(name).std() / pl.len().sqrt()).alias(f"{name} s.e.")]
        elif axes and name not in keys:
            out.append(pl.col(name).first())
    return table.group_by(keys, maintain_order=True).agg(out)
