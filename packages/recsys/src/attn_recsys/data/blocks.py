"""Tables of any size as a stream of polars frames."""

from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
from pyarrow import csv, parquet

PARQUET = (".parquet", ".pq")
SEPARATORS = {".tsv": "\t", ".txt": "\t", ".csv": ","}
PACKED = (".gz", ".bz2", ".zst", ".lz4")
OTHERS = (
    ".xlsx", ".xls", ".ods", ".json", ".jsonl", ".ndjson", ".feather", ".arrow", ".orc", ".avro",
    ".zip", ".pkl",
)  # fmt: skip


def find_files(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files of one or several paths, folders or glob patterns, in order.

    Of a folder they are its Parquet files, or else its text files, in subfolders too; those whose
    name begins with a dot or an underscore are left out, as Spark's marks.

    Raises:
        FileNotFoundError: a path or pattern fits nothing.

    Example:
        >>> find_files("no/such/*.csv")
        Traceback (most recent call last):
        FileNotFoundError: no file fits no/such/*.csv
    """
    found: list[Path] = []
    for pattern in [files] if isinstance(files, str | Path) else files:
        whole = Path(pattern).expanduser()
        names = [str(whole)] if whole.exists() else glob(str(whole), recursive=True)
        paths = [path for name in sorted(names) for path in _parts(Path(name))]
        if not paths:
            raise FileNotFoundError(f"no file fits {pattern}")
        found += paths
    return found


def _parts(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    inside = [p for p in sorted(path.rglob("*")) if p.is_file() and p.name[0] not in "._"]
    columns = [p for p in inside if p.suffix in PARQUET]
    return columns or [p for p in inside if _ending(p) in SEPARATORS]


def _ending(path: Path) -> str:
    return path.with_suffix("").suffix if path.suffix in PACKED else path.suffix


def read_blocks(
    files: str | Path | Sequence[str | Path],
    columns: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    separator: str | None = None,
    null_values: Sequence[str] = (),
    block_bytes: int = 1 << 24,
) -> Iterator[pl.DataFrame]:
    """Reads the columns of CSV, TSV (both also .gz, .bz2, .zst) or Parquet files block by block.

    A column that a Parquet file lacks is taken from a folder `column=value` in which it lies.

    Columns of text files come as strings, with empty cells null; those of Parquet as stored.

    Args:
        files: paths, folders or glob patterns.
        columns: what to read.
        names: all columns of text files without a header.
        separator: between cells; by the file's ending if None.
        null_values: spellings of an empty cell that stand without quotes in a text file.
        block_bytes: how much text is read at once.

    Raises:
        FileNotFoundError: a path fits nothing.
        ValueError: a column is missing or there twice, a line has too few or too many cells, or a
            file cannot be read.
    """
    separator = "\t" if separator == r"\t" else separator
    if separator is not None and not (
        isinstance(separator, str) and len(separator) == 1 and separator.isascii()
    ):
        raise ValueError(f"separator must be one ASCII character, got {separator!r}")
    for path in find_files(files):
        try:
            if _ending(path) in PARQUET:
                yield from _read_parquet(path, columns)
            else:
                between = separator or SEPARATORS.get(_ending(path), ",")
                yield from _read_text(path, columns, names, between, null_values, block_bytes)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            said = " ".join(str(error).split())
            hint = "; save it as UTF-8" if "UTF8" in said or "utf-8" in said else ""
            raise ValueError(f"{path}: {said}{hint}") from error


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    file = parquet.ParquetFile(path)
    found = file.schema_arrow.names
    folders = dict(part.split("=", 1) for part in path.parent.parts if "=" in part)
    beside = {
        name: unquote(folders[name]) for name in columns if name not in found and name in folders
    }
    _require(path, columns, [*found, *beside])
    inside = [name for name in columns if name not in beside]
    for batch in file.iter_batches(batch_size=1 << 17, columns=inside):
        frame = as_frame(batch.select(inside))
        yield frame.with_columns(**{k: pl.lit(x) for k, x in beside.items()}).select(columns)


def as_frame(table: pa.Table | pa.RecordBatch) -> pl.DataFrame:
    """An Arrow table, with types that polars has not as one that it has: UUIDs as text.

    Raises:
        ValueError: a name is there twice, or a decimal has more than 38 digits.
    """
    names = table.schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"column {', '.join(twice)} is there twice")
    return pl.DataFrame({name: pl.from_arrow(_held(table.column(name))) for name in names})


def _held(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    kind = column.type
    if pa.types.is_decimal256(kind):
        return column.cast(pa.decimal128(38, kind.scale))
    if isinstance(kind, pa.UuidType):
        return pa.array([None if x is None else str(x) for x in column.to_pylist()], pa.string())
    return column.cast(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else column


def common_types(
    files: str | Path | Sequence[str | Path], columns: Sequence[str]
) -> dict[str, pl.DataType]:
    """For each column the type that holds those of all files, whose parts may differ.

    Args:
        files: as for `read_blocks`.
        columns: which.

    Raises:
        ValueError: there is no such type, as for numbers and lists.
    """
    parts = [pl.DataFrame(schema=dict.fromkeys(columns, pl.Null))]
    for path in find_files(files):
        text = pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        if _ending(path) in PARQUET:
            stored = parquet.read_schema(path)
            names = [name for name in columns if name in stored.names]
            text = text.with_columns(as_frame(stored.empty_table().select(names)))
        parts.append(text)
    try:
        return dict(pl.concat(parts, how="vertical_relaxed").schema)
    except (pl.exceptions.SchemaError, pl.exceptions.InvalidOperationError) as error:
        raise ValueError(
            f"column {', '.join(columns)}: the files hold it in types that have nothing in common: "
            f"{' '.join(str(error).split())}"
        ) from error


def header(path: Path, separator: str) -> list[str]:
    """The names in the first line of a text file, read as its rows are.

    Raises:
        ValueError: the file is empty.
    """
    if path.suffix in OTHERS:
        raise ValueError(f"{path}: {path.suffix} is not read; save it as CSV, TSV or Parquet")
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(f"{path} is UTF-16 text; save it as UTF-8")
    parse = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    with csv.open_csv(path, read_options=csv.ReadOptions(block_size=1 << 20), parse_options=parse,
                      convert_options=csv.ConvertOptions(check_utf8=False)) as reader:  # fmt: skip
        return [name.removeprefix("\ufeff") for name in reader.schema.names]


def _read_text(
    path: Path,
    columns: Sequence[str],
    names: Sequence[str] | None,
    separator: str,
    null_values: Sequence[str],
    size: int,
) -> Iterator[pl.DataFrame]:
    found = header(path, separator)
    if names is not None and len(found) != len(names):
        raise ValueError(f"{path}: {len(found)} columns, but the schema names {len(names)}")
    _require(path, columns, list(names or found))
    reader = csv.open_csv(
        path,
        read_options=csv.ReadOptions(block_size=size, column_names=names),
        parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            include_columns=list(columns),
            column_types=dict.fromkeys(columns, pa.string()),
            strings_can_be_null=True,
            null_values=["", *null_values],
            quoted_strings_can_be_null=False,
        ),
    )
    for batch in reader:
        yield pl.DataFrame(pl.from_arrow(batch))


def _require(path: Path, columns: Sequence[str], found: Sequence[str]) -> None:
    twice = sorted({name for name in columns if found.count(name) > 1})  # type: ignore[attr-defined]
    if twice:
        raise ValueError(f"{path}: column {', '.join(twice)} is there twice")
    missing = [name for name in columns if name not in found]
    if missing:
        raise ValueError(f"{path}: column {', '.join(missing)} missing; it has {', '.join(found)}")
