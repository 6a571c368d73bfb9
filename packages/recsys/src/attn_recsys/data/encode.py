"""From cells to labels, weights, table rows and numbers."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import polars as pl

from ..schema import WEIGHT, Field, Schema
from .numbering import Vocabulary
from .numbers import as_numbers, transformed, with_points
from .text import as_lists, as_text, flat, plain_text
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
    column = flat(frame[schema.label], f"label column {schema.label}")
    if schema.positive is not None:
        text = plain_text(column)
        wrong, result = text.is_null().to_numpy(), _means(text, schema.positive)
        if not wrong.any():
            return result.to_numpy().astype(np.int8)
    else:
        numbers = _true_and_false(column, schema).cast(pl.Float64, strict=False)
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
    column = flat(frame[str(schema.weight)], f"weight column {schema.weight}")
    text = with_points(plain_text(column), schema) if column.dtype == pl.String else column
    numbers = text.cast(pl.Float64, strict=False)
    wrong = ~(numbers.is_finite() & (numbers >= 0)).fill_null(False)
    if wrong.any():
        at = wrong.arg_max() or 0
        raise ValueError(
            f"weight column {schema.weight} has {column[at]!r} in row {rows[at]}; weights are "
            "numbers of at least 0"
        )
    return numbers.cast(pl.Float32).alias(WEIGHT)


def _true_and_false(column: pl.Series, schema: Schema) -> pl.Series:
    if column.dtype != pl.String:
        return column
    text = with_points(column.str.strip_chars().str.to_lowercase(), schema)
    return text.replace({"true": "1", "false": "0"})


def _means(text: pl.Series, value: str) -> pl.Series:
    """Which texts are a value: the same text, the same number, or the same of true and false."""
    same = text == value
    if value.lower() in ("true", "false"):
        same |= text.str.to_lowercase() == value.lower()
    try:
        number = float(value)
    except ValueError:
        return same.fill_null(False)
    return (same | (text.cast(pl.Float64, strict=False) == number).fill_null(False)).fill_null(
        False
    )


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
    if len(table) > 4 * len(values):  # so that what is built is as small as the block
        met = pl.DataFrame({"value": values.unique()})
        table = table.join(met, on="value", how="semi")
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
