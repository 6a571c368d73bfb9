"""Tables written block by block."""

from pathlib import Path
from types import TracebackType
from typing import IO

import polars as pl
import pyarrow.parquet as pq

from .data.blocks import PARQUET

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def written(column: pl.Series) -> pl.Series:
    """A column as text files can hold it: spans of time in seconds."""
    if isinstance(column.dtype, pl.Duration):
        return column.dt.total_seconds(fractional=True)
    return column


class Output:
    """A table written block by block; it appears under its name when it is complete.

    Args:
        path: whose ending says how: .csv, .tsv, .parquet or .pq; its folder is made.

    Raises:
        ValueError: another ending.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if self.path.suffix not in (*PARQUET, *SEPARATORS):
            endings = ", ".join((*SEPARATORS, *PARQUET))
            raise ValueError(f"output {path}: its ending must be one of {endings}")
        self.part = self.path.with_name(self.path.name + ".part")
        self._file: IO[bytes] | pq.ParquetWriter | None = None

    @property
    def is_text(self) -> bool:
        """Whether a cell is text, so that it holds one value."""
        return self.path.suffix in SEPARATORS

    def __enter__(self) -> "Output":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, frame: pl.DataFrame) -> None:
        """Adds rows."""
        first = self._file is None
        if not self.is_text:
            table = frame.to_arrow()
            if first:
                self._file = pq.ParquetWriter(self.part, table.schema)
            self._file.write_table(table.cast(self._file.schema))  # type: ignore[union-attr]
            return
        if first:
            self._file = self.part.open("wb")
        separator = SEPARATORS[self.path.suffix]
        frame.write_csv(self._file, include_header=first, separator=separator)  # type: ignore

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._file is not None:
                self._file.close()
            if kind is None and self._file is not None:
                self.part.replace(self.path)
        finally:
            self.part.unlink(missing_ok=True)
