"""Numerical columns: read, measured and transformed."""

import zlib

import numpy as np
import polars as pl

from ..notes import note
from ..schema import Field, Schema
from .text import flat, moments, plain_text

LARGEST = 1e18
SAMPLE = 1 << 17
TRUTH = {"true": 1.0, "false": 0.0}


def as_numbers(
    column: pl.Series, field: Field, rows: pl.Series, *, schema: Schema | None = None
) -> pl.Series:
    """A numerical column as float64, missing cells null.

    Args:
        column: the cells.
        field: whose.
        rows: the cells' row numbers in the source.
        schema: tells the spellings of an empty cell, and whether text has decimal commas.

    Raises:
        ValueError: text that is no number, a column of lists, or NaN or infinity where they are not
            missing values.
    """
    if column.dtype.is_nested():
        raise ValueError(
            f"field {field.name}: a numerical column must hold numbers, got {column.dtype}; "
            "for several values in a cell use kind: multi"
        )
    column = flat(column, f"field {field.name}: a numerical column")
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        numbers = column.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    elif isinstance(column.dtype, pl.Duration):
        numbers = column.dt.total_microseconds().cast(pl.Float64) / 1e6
    else:
        if column.dtype == pl.String:
            column = plain_text(column)
            if schema is not None:
                column = column.set(column.is_in(schema.null_values).fill_null(False), None)
                column = with_points(column, schema)
        numbers = column.cast(pl.Float64, strict=False)
        if column.dtype == pl.String and numbers.null_count() > column.null_count():
            truth = column.str.to_lowercase().replace_strict(TRUTH, default=None)
            numbers = pl.select(pl.coalesce(numbers, truth, moments(column) / 1e6)).to_series()
    wrong = numbers.is_null() & column.is_not_null()
    if wrong.any():
        at = wrong.arg_max() or 0
        raise ValueError(f"field {field.name} has {column[at]!r} in row {rows[at]}, not a number")
    infinite = ~numbers.is_finite()
    if infinite.any():
        if field.missing == "empty":
            at = infinite.fill_null(False).arg_max() or 0
            raise ValueError(
                f"field {field.name} has {numbers[at]} in row {rows[at]}; set missing='zero' "
                "to treat it as missing"
            )
        numbers = numbers.set(infinite, None)
    return not_too_large(numbers, field, rows) if field.transform == "log2" else numbers


def not_too_large(numbers: pl.Series, field: Field, rows: pl.Series) -> pl.Series:
    """The numbers, all of a size whose squares can be summed.

    Raises:
        ValueError: one is larger.
    """
    large = (numbers.abs() > LARGEST).fill_null(False)
    if large.any():
        at = large.arg_max() or 0
        raise ValueError(
            f"field {field.name} has {numbers[at]} in row {rows[at]}; numbers may be as large as "
            f"{LARGEST:g}"
        )
    return numbers


def with_points(text: pl.Series, schema: Schema) -> pl.Series:
    """Numbers as text, with a point where the schema says that there is a comma."""
    return text.str.replace(",", ".", literal=True) if schema.decimal_comma else text


def transformed(numbers: pl.Series, field: Field, span: list[float] | None) -> pl.Series:
    """The field's transform.

    Args:
        numbers: float64, nulls stay null.
        field: tells the transform.
        span: what the preparation found, as `PreparedSchema.ranges` describes it.

    Example:
        >>> field = Field("I1", "numerical", transform="log2")
        >>> transformed(pl.Series([-5.0, 2.0, 100.0]), field, None).to_list()
        [-5.0, 2.0, 21.0]
    """
    if field.transform == "log2":
        x = numbers.to_numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = np.where(x > 2, np.trunc(np.log(np.where(x > 2, x, 1.0)) ** 2), x)
        return pl.Series(scaled).set(numbers.is_null(), None)
    if field.transform == "standard":
        mean, spread, low, high = span or (0.0, 1.0, -LARGEST, LARGEST)
        return (numbers.clip(low, high) - mean) / max(spread, 1e-12)
    if field.transform == "minmax":
        low, high = span or (0.0, 1.0)
        return ((numbers - low) / max(high - low, 1e-12)).clip(0.0, 1.0)
    if field.transform == "quantiles":
        place = np.searchsorted(span or [], numbers.to_numpy(), side="right")
        return pl.Series(place.astype(np.int32)).set(numbers.is_null(), None)
    return numbers.clip(*span) if span else numbers


class NumberSample:
    """Range of a number, and a uniform sample for its quantiles."""

    def __init__(self, field: Field):
        self.field = field
        self.low, self.high, self.seen = np.inf, -np.inf, 0
        self.mean = self.squares = 0.0  # the latter of the distances from the mean
        self.kept = np.empty(0)
        self.random = np.random.default_rng(zlib.crc32(field.name.encode()))

    def update(self, numbers: np.ndarray) -> None:
        """Takes the numbers of a block."""
        if not len(numbers):
            return
        self.low, self.high = min(self.low, numbers.min()), max(self.high, numbers.max())
        before, self.seen = self.seen, self.seen + len(numbers)
        step = numbers.mean() - self.mean
        self.mean += step * len(numbers) / self.seen
        self.squares += numbers.var() * len(numbers) + step**2 * before * len(numbers) / self.seen
        if self.field.transform == "quantiles":
            share = len(numbers) / self.seen
            take = min(len(numbers), max(1, round(SAMPLE * share)))
            new = self.random.choice(numbers, take, replace=False)
            old = self.random.permutation(self.kept)[: SAMPLE - take]
            self.kept = np.concatenate([old, new])

    @property
    def spread(self) -> float:
        """The standard deviation."""
        return float(np.sqrt(self.squares / max(self.seen, 1)))

    def warn(self, name: str) -> None:
        """Says which numbers are too large or too far apart to train on as they are."""
        size = max(self.spread, abs(self.mean))
        if self.field.transform == "none" and size > 1e3:
            note(
                f"field {name}: values around {self.mean:.3g}, spread {self.spread:.3g}, as they "
                "are will hardly train; leave out transform: none",
            )

    def span(self) -> list[float]:
        """What the field's transform needs, as `PreparedSchema.ranges` describes it."""
        if not self.seen or self.field.transform == "log2":
            return []
        if self.field.transform == "standard":
            return [float(self.mean), self.spread, float(self.low), float(self.high)]
        if self.field.transform in ("minmax", "none"):
            return [float(self.low), float(self.high)]
        if self.field.transform == "quantiles":
            shares = np.arange(1, self.field.bins) / self.field.bins
            return np.unique(np.quantile(self.kept, shares)).tolist()
        return []
