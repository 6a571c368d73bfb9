"""Numbers known from elsewhere: a value, its standard error and its source, for a configuration."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Reference(NamedTuple):
    """A number that is not measured here.

    Attributes:
        value: the number.
        error: its standard error; 0 where it is exact.
        source: where it is from, in the words of `Check.source`.
    """

    value: float
    error: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A printed table of numbers, and the configuration for which they were printed.

    Attributes:
        experiment: the short name of the experiment it belongs to.
        given: fields of that experiment's configuration that the numbers depend on.
        columns: names of the quantities.
        rows: the numbers of each row, one a column.
        source: where they are from.
        error: their standard error, the same for all or one a row.
        relative: a further standard error in units of the number.
    """

    experiment: str
    given: Mapping[str, Any]
    columns: tuple[Hashable, ...]
    rows: Mapping[Any, tuple[float, ...]]
    source: str
    error: float | Mapping[Any, float] = 0.0
    relative: float = 0.0

    def holds(self, config: Any) -> bool:
        """Whether the numbers were printed for this configuration."""
        return all(getattr(config, name) == value for name, value in self.given.items())

    def reference(self, row: Any, value: float) -> Reference:
        """A number of a row, with its error."""
        error = self.error[row] if isinstance(self.error, Mapping) else self.error
        return Reference(value, error + self.relative * abs(value), self.source)


def known(
    tables: Iterable[Printed], experiment: str, config: Any
) -> defaultdict[Hashable, dict[Any, Reference]]:
    """What is known for this very configuration of an experiment, by column and row; else nothing.

    Example:
        >>> from types import SimpleNamespace
        >>> table = Printed(experiment="flow", given={"d": 5}, columns=("gamma",),
        ...                 rows={5000: (0.5,)}, source="measured", relative=0.01)
        >>> known([table], "flow", SimpleNamespace(d=5))["gamma"]
        {5000: Reference(value=0.5, error=0.005, source='measured')}
        >>> known([table], "flow", SimpleNamespace(d=7))["gamma"]
        {}
    """
    found: defaultdict[Hashable, dict[Any, Reference]] = defaultdict(dict)
    for table in tables:
        if table.experiment == experiment and table.holds(config):
            for row, values in table.rows.items():
                for column, value in zip(table.columns, values, strict=True):
                    found[column][row] = table.reference(row, value)
    return found
