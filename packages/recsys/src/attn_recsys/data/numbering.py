"""From counted values to rows of the shared table."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from ..layout import Layout
from ..schema import Field, Schema
from .vocabulary import Counter


@dataclass(frozen=True)
class Vocabulary:
    """The table rows of every field's values.

    Attributes:
        tables: for each field with a vocabulary, the columns `value`, `id` and `passed` (the row
            of the source in which the value reached its threshold).
        rare: for each field with a vocabulary, the row of rare and unseen values.
        missing: for each field that learns it, the row of an empty cell.
        layout: the fields' places.
        features: rows that a value can reach.
        warm_up: whether a value is rare in the rows before `passed`, as in a single pass.
    """

    tables: dict[str, pl.DataFrame]
    rare: dict[str, int]
    missing: dict[str, int]
    layout: Layout
    features: int
    warm_up: bool = False


def number_by_field(schema: Schema, counters: Mapping[str, Counter]) -> Vocabulary:
    """Field after field: a number's row, or the rare row and the values as they passed, or buckets.

    A learned missing row is the field's last. Row 0 is left unused. For Criteo's columns this is
    the official numbering.
    """
    tables, rare, missing = {}, {}, {}
    firsts, sizes = [], []
    start = 1
    for field in schema.fields:
        if field.target is not None:  # it has its target's rows
            firsts.append(0)
            sizes.append(1)
            continue
        size = 1
        if field.transform == "quantiles":
            size = field.bins
        elif field.buckets:
            size = field.buckets
        elif field.name in counters:
            passed = counters[field.name].passed()
            rare[field.name] = start
            tables[field.name] = _table(passed, start + 1)
            size = 1 + len(passed)
        if field.missing == "learned":
            missing[field.name] = start + size
            size += 1
        firsts.append(start)
        sizes.append(size)
        start += size
    layout = layout_of(schema, firsts, sizes, rows=start)
    return Vocabulary(tables, rare, missing, layout, features=start - 1)


def number_by_passing(
    schema: Schema, counters: Mapping[str, Counter], fixed: Mapping[str, list[str]] | None = None
) -> Vocabulary:
    """First the numbers' rows, then every field's rare row, then values of all fields as they pass.

    A value is rare in the rows before it has passed: what a single pass over the data gives.

    Args:
        schema: the fields.
        counters: of the fields whose values are counted.
        fixed: fields without a rare row whose values are numbered before the pass.

    Source: the official preparation of Avazu and KDD12.
    """
    fixed = fixed or {}
    numbers = [field.name for field in schema.fields if field.is_number]
    counted = [name for name in schema.names if name in counters]
    own = {name: i for i, name in enumerate([*numbers, *counted])}
    start = len(own)
    tables, missing = {}, {}
    for name, values in fixed.items():
        passed = pl.DataFrame({"value": values, "passed": [-1] * len(values)})
        tables[name] = _table(passed, start)
        start += len(values)
    places = {name: i for i, name in enumerate(schema.names)}
    merged = pl.concat(
        [
            counters[name]
            .passed()
            .select("value", "passed")
            .with_columns(field=pl.lit(name), place=pl.lit(places[name]))
            for name in counted
        ]
    )
    merged = merged.sort("passed", "place").with_row_index("id", offset=start)
    for name in counted:
        tables[name] = merged.filter(pl.col("field") == name).select(
            "value", pl.col("id").cast(pl.Int32), "passed"
        )
    rows = start + len(merged)
    firsts = [own[name] if name in numbers else 0 for name in schema.names]
    sizes = [1 if name in numbers else rows for name in schema.names]
    rare = {name: own[name] for name in counted}
    layout = layout_of(schema, firsts, sizes, rows)
    return Vocabulary(tables, rare, missing, layout, features=rows, warm_up=True)


def _table(passed: pl.DataFrame, start: int) -> pl.DataFrame:
    ids = pl.int_range(start, start + pl.len(), dtype=pl.Int32)
    return passed.select(pl.col("value").cast(pl.String), ids.alias("id"), "passed")


def layout_of(schema: Schema, firsts: list[int], sizes: list[int], rows: int) -> Layout:
    """The places of the fields of a schema; a history has its target's."""
    fields: tuple[Field, ...] = schema.fields
    for i, field in enumerate(fields):
        if field.target is not None:
            at = schema.names.index(field.target)
            firsts[i], sizes[i] = firsts[at], sizes[at]
    return Layout(
        names=tuple(schema.names),
        widths=tuple(field.width for field in fields),
        firsts=tuple(firsts),
        sizes=tuple(sizes),
        rows=rows,
        numerical=tuple(field.name for field in fields if field.is_number),
        attends=tuple((f.name, f.target) for f in fields if f.target is not None),
    )
