"""From cells to table rows and numbers."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import polars as pl

from ..schema import WEIGHT, Field, Schema
from .numbering import Vocabulary
from .vocabulary import stable_hash


def labels(frame: pl.DataFrame, schema: Schema, start: int) -> np.ndarray:
    """The label of every row: 0, 1, or -1 for a row to be dropped.

    Args:
        frame: a block.
        schema: tells the column, and the thresholds of a rating or the positive value.
        start: number of the block's first row, for messages.

    Raises:
        ValueError: a label that is neither 0 nor 1, no number, or missing.
    """
    column = frame[schema.label]
    if schema.positive is not None:
        text = plain_text(column)
        wrong, result = text.is_null().to_numpy(), (text == schema.positive).fill_null(False)
        if not wrong.any():
            return result.to_numpy().astype(np.int8)
        numbers = np.full(len(column), np.nan)
    else:
        numbers = _true_and_false(column).cast(pl.Float64, strict=False)
        numbers = numbers.fill_null(float("nan")).to_numpy()
        if schema.above is not None and schema.below is not None:
            wrong = np.isnan(numbers)
            result = np.where(numbers > schema.above, 1, np.where(numbers < schema.below, 0, -1))
        else:
            wrong = (numbers != 0) & (numbers != 1)
            result = numbers
        if not wrong.any():
            return result.astype(np.int8)
    row = int(wrong.argmax())
    raise ValueError(
        f"label column {schema.label} has {column[row]!r} in row {start + row}; allowed are 0 "
        "and 1 (for other labels say which is `positive`; for a rating, set above and below)"
    )


def weights(frame: pl.DataFrame, schema: Schema, rows: pl.Series) -> pl.Series:
    """The weight of every row in losses and metrics.

    Raises:
        ValueError: one is missing, negative, infinite or no number.
    """
    column = frame[str(schema.weight)]
    numbers = column.cast(pl.Float64, strict=False)
    wrong = ~(numbers.is_finite() & (numbers >= 0)).fill_null(False)
    if wrong.any():
        at = wrong.arg_max() or 0
        raise ValueError(
            f"weight column {schema.weight} has {column[at]!r} in row {rows[at]}; weights are "
            "numbers of at least 0"
        )
    return numbers.cast(pl.Float32).alias(WEIGHT)


def _true_and_false(column: pl.Series) -> pl.Series:
    if column.dtype != pl.String:
        return column
    text = column.str.to_lowercase()
    return text.replace({"true": "1", "false": "0"})


def plain_text(column: pl.Series) -> pl.Series:
    """Any column as text, without the white space around it and empty cells null.

    Example:
        >>> plain_text(pl.Series([True, None])).to_list()
        ['true', None]
    """
    if column.dtype in (pl.Categorical, pl.Enum) or column.dtype.is_decimal():
        column = column.cast(pl.String)
    if isinstance(column.dtype, pl.Datetime):
        column = column.dt.replace_time_zone(None).cast(pl.Datetime("us"))
    text = column.cast(pl.String).str.strip_chars()
    return text.set(text == "", None)


INTEGER, BOOLEAN = r"^[+-]?\d+$", r"^(?i)(true|false)$"
WHOLE = r"^([+-]?\d+)\.0*$"
MIDNIGHT = r" 00:00(:00)?$"


def kind_of(text: pl.Series) -> set[str]:
    """Which kinds all the texts can be: "integer", "boolean", "datetime"; any can be "text".

    Example:
        >>> kind_of(pl.Series(["1", "20"]))
        {'integer'}
    """
    values = text.drop_nulls()
    day = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?$"
    tests = {"integer": INTEGER, "boolean": BOOLEAN, "datetime": day}
    return {name for name, pattern in tests.items() if values.str.contains(pattern).all()}


def as_text(column: pl.Series, field: Field, kind: str | None = None) -> pl.Series:
    """A categorical column as strings, empty cells null.

    Args:
        column: the cells.
        field: whose.
        kind: what the training values were; None while these are counted.

    Raises:
        ValueError: it holds floats, in which different ids can become equal.
    """
    if column.dtype.is_float():
        whole = kind == "integer" and (column.drop_nulls() % 1 == 0).all()
        if not whole or (column.drop_nulls().abs() >= 2**53).any():
            raise ValueError(
                f"field {field.name}: a categorical column must hold strings or integers, "
                f"got {column.dtype}; floats merge ids above 2^24 or 2^53"
            )
        return column.cast(pl.Int64).cast(pl.String)
    text = plain_text(column)
    if kind == "integer":
        return text.str.replace(WHOLE, "$1")
    if kind == "boolean":
        text = text.str.to_lowercase()
        return text.replace({"1": "true", "0": "false", "1.0": "true", "0.0": "false"})
    if kind == "datetime":
        text = text.str.replace("T", " ", literal=True).str.replace(r"\.0+$", "")
        return text.str.replace(MIDNIGHT, "")
    return text


def as_lists(column: pl.Series, field: Field, kind: str | None = None) -> pl.Series:
    """A multi-valued column as lists of strings, at most `max_values` each."""
    lists = whole_lists(column, field, kind)
    if field.keep == "last":
        return lists.list.tail(field.max_values)
    return lists.list.head(field.max_values)


def whole_lists(column: pl.Series, field: Field, kind: str | None = None) -> pl.Series:
    """A multi-valued column as lists of strings, null where there is none."""
    if not isinstance(column.dtype, pl.List):
        column = plain_text(column).str.split(field.separator)
    lists = column.cast(pl.List(pl.String))
    flat = lists.to_frame("value").with_row_index("at").explode("value")
    flat = flat.with_columns(as_text(flat["value"], field, kind)).drop_nulls("value")
    grouped = flat.group_by("at", maintain_order=True).agg("value")
    everyone = pl.DataFrame({"at": pl.int_range(len(lists), dtype=pl.UInt32, eager=True)})
    return everyone.join(grouped, on="at", how="left", maintain_order="left")["value"]


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
    if isinstance(column.dtype, pl.List | pl.Array | pl.Struct):
        raise ValueError(
            f"field {field.name}: a numerical column must hold numbers, got {column.dtype}; "
            "for several values in a cell use kind: multi"
        )
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        numbers = column.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    else:
        if column.dtype in (pl.Categorical, pl.Enum):
            column = column.cast(pl.String)
        if column.dtype == pl.String:
            column = plain_text(column)
            if schema is not None:
                column = column.set(column.is_in(schema.null_values).fill_null(False), None)
            if schema is not None and schema.decimal_comma:
                column = column.str.replace(",", ".", literal=True)
        numbers = column.cast(pl.Float64, strict=False)
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
    if field.transform == "log2" and (numbers.abs() > LARGEST).any():
        at = (numbers.abs() > LARGEST).fill_null(False).arg_max() or 0
        raise ValueError(
            f"field {field.name} has {numbers[at]} in row {rows[at]}; numbers may be as large as "
            f"{LARGEST:g}"
        )
    return numbers


LARGEST = 1e18


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


def encoded(
    frame: pl.DataFrame,
    schema: Schema,
    vocabulary: Vocabulary,
    ranges: dict[str, list[float]],
    seed: int,
    rows: pl.Series,
    kinds: Mapping[str, str] = MappingProxyType({}),
) -> pl.DataFrame:
    """The fields of a block: table rows as int32, numbers as float32, null where missing.

    Args:
        frame: cells as read.
        schema: the fields.
        vocabulary: their table rows.
        ranges: what the transforms need.
        seed: of the hashing.
        rows: the cells' row numbers in the source.
        kinds: what the training values of fields were.

    Raises:
        ValueError: a cell that does not fit its field.
    """
    columns = {}
    for field, first in zip(schema.fields, vocabulary.layout.firsts, strict=True):
        cells, kind = frame[field.name], kinds.get(field.vocabulary)
        if field.kind == "numerical":
            numbers = as_numbers(cells, field, rows, schema=schema)
            numbers = transformed(numbers, field, ranges.get(field.name))
            if field.is_number:
                columns[field.name] = numbers.cast(pl.Float32)
                continue
            ids = numbers.cast(pl.Int32) + first
        elif field.is_list:
            lists = as_lists(cells, field, kind)
            columns[field.name] = _looked_up_lists(lists, rows, field, vocabulary, seed)
            continue
        else:
            ids = _looked_up(as_text(cells, field, kind), rows, field, vocabulary, seed)
        if field.name in vocabulary.missing:
            ids = ids.fill_null(vocabulary.missing[field.name])
        columns[field.name] = ids.cast(pl.Int32)
    return pl.DataFrame(columns)


def _looked_up(
    values: pl.Series, rows: pl.Series, field: Field, vocabulary: Vocabulary, seed: int
) -> pl.Series:
    if field.vocabulary not in vocabulary.tables:  # hashed
        at = vocabulary.layout.names.index(field.vocabulary)
        first, size = vocabulary.layout.firsts[at], vocabulary.layout.sizes[at]
        buckets = size - (field.vocabulary in vocabulary.missing)
        return stable_hash(values, buckets, seed) + first
    table = vocabulary.tables[field.vocabulary]
    found = pl.DataFrame({"value": values, "row": rows}).join(
        table, on="value", how="left", maintain_order="left"
    )
    ids = pl.col("id")
    if vocabulary.warm_up:
        ids = pl.when(pl.col("row") >= pl.col("passed")).then(ids)
    if field.vocabulary in vocabulary.rare:
        ids = ids.fill_null(vocabulary.rare[field.vocabulary])
    return found.select(pl.when(pl.col("value").is_not_null()).then(ids).alias("id"))["id"]


def _looked_up_lists(
    lists: pl.Series, rows: pl.Series, field: Field, vocabulary: Vocabulary, seed: int
) -> pl.Series:
    flat = lists.to_frame("value").with_row_index("at").explode("value").drop_nulls("value")
    ids = _looked_up(flat["value"], rows[flat["at"]], field, vocabulary, seed)
    grouped = (
        flat.select("at")
        .with_columns(ids.alias("id"))
        .group_by("at", maintain_order=True)
        .agg("id")
    )
    everyone = pl.DataFrame({"at": pl.int_range(len(lists), dtype=pl.UInt32, eager=True)})
    return everyone.join(grouped, on="at", how="left", maintain_order="left")["id"]
