"""Tables of any size as a stream of polars frames."""

import gzip
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import csv, parquet

PARQUET = (".parquet", ".pq")
SEPARATORS = {".tsv": "\t", ".txt": "\t", ".csv": ","}


def find_files(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files of one or several paths or glob patterns, in order.

    Raises:
        FileNotFoundError: a path or pattern fits nothing.

    Example:
        >>> find_files("no/such/*.csv")
        Traceback (most recent call last):
        FileNotFoundError: no file fits no/such/*.csv
    """
    found = []
    for pattern in [files] if isinstance(files, (str, Path)) else files:
        paths = sorted(glob(str(Path(pattern).expanduser())))
        if not paths:
            raise FileNotFoundError(f"no file fits {pattern}")
        found += [Path(path) for path in paths]
    return found


def read_blocks(
    files: str | Path | Sequence[str | Path],
    columns: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    separator: str | None = None,
    block_bytes: int = 1 << 24,
) -> Iterator[pl.DataFrame]:
    """Reads the columns of CSV, TSV (both also .gz) or Parquet files block by block.

    Columns of text files come as strings, with empty cells null; those of Parquet as stored.

    Args:
        files: paths or glob patterns.
        columns: what to read.
        names: all columns of text files without a header.
        separator: between cells; by the file's ending if None.
        block_bytes: how much text is read at once.

    Raises:
        FileNotFoundError: a path fits nothing.
        ValueError: a column is missing, or a line has too few or too many cells.
    """
    for path in find_files(files):
        ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
        if ending in PARQUET:
            file = parquet.ParquetFile(path)
            _require(path, columns, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=1 << 17, columns=list(columns)):
                yield pl.DataFrame(pl.from_arrow(batch))
        else:
            yield from _read_text(
                path, columns, names, separator or SEPARATORS.get(ending, ","), block_bytes
            )


def _read_text(
    path: Path, columns: Sequence[str], names: Sequence[str] | None, separator: str, size: int
) -> Iterator[pl.DataFrame]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        first = file.readline().decode(errors="replace").rstrip("\r\n").split(separator)
    if names is not None and len(first) != len(names):
        raise ValueError(f"{path}: {len(first)} columns, but the schema names {len(names)}")
    _require(path, columns, names or first)
    try:
        reader = csv.open_csv(
            path,
            read_options=csv.ReadOptions(
                block_size=size, column_names=None if names is None else list(names)
            ),
            parse_options=csv.ParseOptions(delimiter=separator),
            convert_options=csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
                quoted_strings_can_be_null=True,
            ),
        )
        for batch in reader:
            yield pl.DataFrame(pl.from_arrow(batch))
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def _require(path: Path, columns: Sequence[str], found: Sequence[str]) -> None:
    missing = [name for name in columns if name not in found]
    if missing:
        raise ValueError(f"{path}: column {', '.join(missing)} missing; it has {', '.join(found)}")
