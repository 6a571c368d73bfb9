"""Tables of any size as a stream of polars frames."""

from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import csv, parquet

PARQUET = (".parquet", ".pq")
SEPARATORS = {".tsv": "\t", ".txt": "\t", ".csv": ","}


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
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def read_blocks(
    files: str | Path | Sequence[str | Path],
    columns: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    separator: str | None = None,
    null_values: Sequence[str] = (),
    block_bytes: int = 1 << 24,
) -> Iterator[pl.DataFrame]:
    """Reads the columns of CSV, TSV (both also .gz) or Parquet files block by block.

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
    for path in find_files(files):
        try:
            if _ending(path) in PARQUET:
                file = parquet.ParquetFile(path)
                _require(path, columns, file.schema_arrow.names)
                for batch in file.iter_batches(batch_size=1 << 17, columns=list(columns)):
                    yield pl.DataFrame(pl.from_arrow(batch.select(list(columns))))
            else:
                between = separator or SEPARATORS.get(_ending(path), ",")
                yield from _read_text(path, columns, names, between, null_values, block_bytes)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def header(path: Path, separator: str) -> list[str]:
    """The names in the first line of a text file, read as its rows are.

    Raises:
        ValueError: the file is empty.
    """
    parse = csv.ParseOptions(delimiter=separator)
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
    found = list(names or found)
    _require(path, columns, found)
    reader = csv.open_csv(
        path,
        read_options=csv.ReadOptions(
            block_size=size, column_names=found, skip_rows=0 if names is not None else 1
        ),
        parse_options=csv.ParseOptions(delimiter=separator),
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
