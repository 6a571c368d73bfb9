"""From cells to table rows and numbers."""

import numpy as np
import polars as pl

from ..schema import Field, Schema
from .numbering import Vocabulary
from .vocabulary import stable_hash


def labels(frame: pl.DataFrame, schema: Schema, start: int) -> np.ndarray:
    """The label of every row: 0, 1, or -1 for a row to be dropped.

    Args:
        frame: a block.
        schema: tells the column, and the thresholds of a rating.
        start: number of the block's first row, for messages.

    Raises:
        ValueError: a label that is neither 0 nor 1, or no number.
    """
    column = frame[schema.label]
    numbers = column.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
    if schema.above is not None and schema.below is not None:
        wrong = np.isnan(numbers)
        result = np.where(numbers > schema.above, 1, np.where(numbers < schema.below, 0, -1))
    else:
        wrong = (numbers != 0) & (numbers != 1)
        result = numbers
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"label column {schema.label} has {column[row]!r} in row {start + row}; allowed are 0 "
            "and 1 (for a rating, set above and below)"
        )
    return result.astype(np.int8)


def as_text(column: pl.Series, field: Field) -> pl.Series:
    """A categorical column as strings, empty cells null.

    Raises:
        ValueError: it holds floats, in which different ids can become equal.
    """
    if column.dtype.is_float():
        raise ValueError(
            f"field {field.name}: a categorical column must hold strings or integers, "
            f"got {column.dtype}; floats merge ids above 2^24 or 2^53"
        )
    text = column.cast(pl.String)
    return text if column.dtype.is_integer() else text.set(text == "", None)


def as_lists(column: pl.Series, field: Field) -> pl.Series:
    """A multi-valued column as lists of strings, at most `max_values` each."""
    if not isinstance(column.dtype, pl.List):
        column = as_text(column, field).str.split(field.separator)
    lists = column.cast(pl.List(pl.String))
    return lists.list.eval(pl.element().filter(pl.element() != "")).list.head(field.max_values)


def as_numbers(column: pl.Series, field: Field, rows: pl.Series) -> pl.Series:
    """A numerical column as float64, missing cells null.

    Raises:
        ValueError: text that is no number, or NaN or infinity where they are not missing values.
    """
    if column.dtype == pl.String:
        column = column.set(column == "", None)
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
    return numbers


def transformed(numbers: pl.Series, field: Field, span: list[float] | None) -> pl.Series:
    """The field's transform.

    Args:
        numbers: float64, nulls stay null.
        field: tells the transform.
        span: what the preparation found: least and largest value, or the bins' edges.

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
    if field.transform == "minmax":
        low, high = span or (0.0, 1.0)
        return ((numbers - low) / max(high - low, 1e-12)).clip(0.0, 1.0)
    if field.transform == "quantiles":
        place = np.searchsorted(span or [], numbers.to_numpy(), side="right")
        return pl.Series(place.astype(np.int32)).set(numbers.is_null(), None)
    return numbers


def encoded(
    frame: pl.DataFrame,
    schema: Schema,
    vocabulary: Vocabulary,
    ranges: dict[str, list[float]],
    seed: int,
    rows: pl.Series,
) -> pl.DataFrame:
    """The fields of a block: table rows as int32, numbers as float32, null where missing.

    Args:
        frame: cells as read.
        schema: the fields.
        vocabulary: their table rows.
        ranges: what the transforms need.
        seed: of the hashing.
        rows: the cells' row numbers in the source.

    Raises:
        ValueError: a cell that does not fit its field.
    """
    columns = {}
    for field, first in zip(schema.fields, vocabulary.layout.firsts, strict=True):
        cells = frame[field.name]
        if field.kind == "numerical":
            numbers = transformed(as_numbers(cells, field, rows), field, ranges.get(field.name))
            if field.is_number:
                columns[field.name] = numbers.cast(pl.Float32)
                continue
            ids = numbers.cast(pl.Int32) + first
        elif field.kind == "multi":
            columns[field.name] = _looked_up_lists(as_lists(cells, field), rows, field, vocabulary)
            continue
        elif field.buckets:
            ids = stable_hash(as_text(cells, field), field.buckets, seed) + first
        else:
            ids = _looked_up(as_text(cells, field), rows, field, vocabulary)
        if field.name in vocabulary.missing:
            ids = ids.fill_null(vocabulary.missing[field.name])
        columns[field.name] = ids.cast(pl.Int32)
    return pl.DataFrame(columns)


def _looked_up(
    values: pl.Series, rows: pl.Series, field: Field, vocabulary: Vocabulary
) -> pl.Series:
    table = vocabulary.tables[field.name]
    found = pl.DataFrame({"value": values, "row": rows}).join(
        table, on="value", how="left", maintain_order="left"
    )
    ids = pl.col("id")
    if vocabulary.warm_up:
        ids = pl.when(pl.col("row") >= pl.col("passed")).then(ids)
    if field.name in vocabulary.rare:
        ids = ids.fill_null(vocabulary.rare[field.name])
    return found.select(pl.when(pl.col("value").is_not_null()).then(ids).alias("id"))["id"]


def _looked_up_lists(
    lists: pl.Series, rows: pl.Series, field: Field, vocabulary: Vocabulary
) -> pl.Series:
    flat = lists.to_frame("value").with_row_index("at").explode("value").drop_nulls("value")
    ids = _looked_up(flat["value"], rows[flat["at"]], field, vocabulary)
    grouped = (
        flat.select("at")
        .with_columns(ids.alias("id"))
        .group_by("at", maintain_order=True)
        .agg("id")
    )
    everyone = pl.DataFrame({"at": pl.int_range(len(lists), dtype=pl.UInt32, eager=True)})
    return everyone.join(grouped, on="at", how="left", maintain_order="left")["id"]
