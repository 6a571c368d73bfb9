"""Columns of categories as text, however the table holds them."""

import polars as pl

from ..schema import Field


def flat(column: pl.Series, what: str) -> pl.Series:
    """A column with one value in each cell; categories and bytes as the text that they are.

    Raises:
        ValueError: its cells hold several values, or bytes that are no text.
    """
    if column.dtype.is_nested() or column.dtype == pl.Object:
        raise ValueError(f"{what} must hold one value in a cell, got {column.dtype}")
    if column.dtype in (pl.Categorical, pl.Enum, pl.Binary):
        try:
            return column.cast(pl.String)
        except pl.exceptions.ComputeError as error:
            raise ValueError(f"{what} holds bytes that are no UTF-8 text") from error
    return column


def plain_text(column: pl.Series) -> pl.Series:
    """Any column as text, without the white space around it and empty cells null.

    Raises:
        ValueError: its cells hold several values, or bytes that are no text.

    Example:
        >>> plain_text(pl.Series([True, None])).to_list()
        ['true', None]
    """
    column = flat(column, f"column {column.name}")
    if isinstance(column.dtype, pl.Datetime):
        column = column.cast(pl.Datetime("us"))  # of a zone, in UTC
    if isinstance(column.dtype, pl.Duration):
        column = column.dt.total_microseconds()
    decimal = column.dtype.is_decimal()
    text = column.cast(pl.String).str.strip_chars()
    if decimal:  # 2.50 of one table is 2.5 of another
        text = text.str.replace(r"(\.\d*?)0+$", "$1").str.strip_suffix(".")
    return text.set(text == "", None)


INTEGER, BOOLEAN = r"^[+-]?\d+(\.0*)?$", r"^(?i)(true|false)$"
WHOLE = r"^([+-]?\d+)\.0*$"
DATETIME = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?$"
TO_BOOLEAN = {"1": "true", "0": "false", "1.0": "true", "0.0": "false"}
TO_INTEGER = {"true": "1", "True": "1", "TRUE": "1", "false": "0", "False": "0", "FALSE": "0"}


def kind_of(text: pl.Series) -> set[str]:
    """Which kinds all the texts can be: "integer", "boolean", "datetime"; any can be "text".

    Example:
        >>> kind_of(pl.Series(["1", "20"]))
        {'integer'}
    """
    values = text.drop_nulls()
    tests = {"integer": INTEGER, "boolean": BOOLEAN, "datetime": DATETIME}
    return {name for name, pattern in tests.items() if values.str.contains(pattern).all()}


def as_text(column: pl.Series, field: Field, kind: str | None = None) -> pl.Series:
    """A categorical column as strings, empty cells null.

    Args:
        column: the cells.
        field: whose.
        kind: what the training values were; None while these are counted.

    Raises:
        ValueError: it holds floats that are no integers, or so large that different ids are equal.
    """
    column = flat(column, f"field {field.name}: a column of categories")
    if column.dtype.is_float():  # integers with empty cells, as pandas writes them
        column = column.fill_nan(None)
        exact = 2**24 if column.dtype == pl.Float32 else 2**53
        numbers = column.drop_nulls()
        if kind not in (None, "integer", "boolean") or not (
            (numbers % 1 == 0).all() and (numbers.abs() < exact).all()
        ):
            raise ValueError(
                f"field {field.name}: a categorical column must hold strings or integers, "
                f"got {column.dtype}; floats merge ids above 2^24 or 2^53"
            )
        column = column.cast(pl.Int64)
    text = plain_text(column)
    if kind == "integer":
        text = text.str.replace(WHOLE, "$1").str.strip_prefix("+")
        return text.replace(TO_INTEGER)
    if kind == "boolean":
        return text.str.to_lowercase().replace(TO_BOOLEAN)
    if kind == "datetime":
        plain = moments(text).cast(pl.Int64).cast(pl.Datetime("us")).cast(pl.String)
        plain = plain.str.replace(r"\.0+$", "").str.strip_suffix(" 00:00:00")
        return pl.select(pl.coalesce(plain, text)).to_series()
    return text


def moments(text: pl.Series) -> pl.Series:
    """Dates and times, written as ISO 8601 has them, in microseconds; null where it is none.

    Those with a zone are brought to UTC, the others are taken as UTC.

    Example:
        >>> moments(pl.Series(["1970-01-01T00:00:01Z", "1970-01-02", "x"])).to_list()
        [1000000.0, 86400000000.0, None]
        >>> moments(pl.Series(["1970-01-01 02:00:01+02:00"])).to_list()
        [1000000.0]
    """
    text = text.str.replace("T", " ", literal=True).str.strip_suffix("Z")
    zone = text.str.extract(r":\d\d(?:\.\d+)?([+-]\d\d(?::?\d\d)?)$").str.replace(":", "")
    signed = zone.str.pad_end(5, "0").cast(pl.Int64).fill_null(0)  # +0530
    minutes = signed.sign() * (signed.abs() // 100 * 60 + signed.abs() % 100)
    text = text.str.replace(r"(:\d\d(?:\.\d+)?)[+-]\d\d(?::?\d\d)?$", "$1")
    patterns = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
    whole = [text.str.to_datetime(x, time_unit="us", strict=False) for x in patterns]
    found = pl.select(pl.coalesce(whole)).to_series().dt.epoch("us").cast(pl.Float64)
    return found - minutes * 6e7


def as_lists(column: pl.Series, field: Field, kind: str | None = None) -> pl.Series:
    """A multi-valued column as lists of strings, at most `max_values` each."""
    lists = whole_lists(column, field, kind)
    if field.keep == "last":
        return lists.list.tail(field.max_values)
    return lists.list.head(field.max_values)


def whole_lists(column: pl.Series, field: Field, kind: str | None = None) -> pl.Series:
    """A multi-valued column as lists of strings, null where there is none."""
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if not isinstance(column.dtype, pl.List):
        column = plain_text(column).str.split(field.separator)
    elif column.dtype.inner.is_nested():  # type: ignore[union-attr]
        raise ValueError(
            f"field {field.name}: a cell must hold a list of values, got {column.dtype}"
        )
    lists = column
    flat = lists.to_frame("value").with_row_index("at").explode("value")
    flat = flat.with_columns(as_text(flat["value"], field, kind)).drop_nulls("value")
    grouped = flat.group_by("at", maintain_order=True).agg("value")
    everyone = pl.DataFrame({"at": pl.int_range(len(lists), dtype=pl.UInt32, eager=True)})
    return everyone.join(grouped, on="at", how="left", maintain_order="left")["value"]
