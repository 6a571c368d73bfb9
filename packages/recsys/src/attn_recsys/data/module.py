"""Data modules: prepare once, then load batches."""

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from pytorch_lightning import LightningDataModule

from core_attn.training.data import StreamLoader

from ..schema import PreparedSchema, Schema, read_yaml
from .batches import ShardDataset
from .blocks import find_files, read_blocks
from .prepare import load_prepared, prepare
from .vocabulary import check_rate, split_of_rows


class ClickData(LightningDataModule):
    """Batches of a table that is prepared at its first use and kept.

    A subclass says what its preparation depends on (`key`) and how it is made (`build`).

    Args:
        folder: the prepared folder; by default one under $ATTN_RECSYS_CACHE or
            ~/.cache/attn-recsys that is named after the key, so that changed files or settings
            are prepared anew.
        batch_size: rows of a training batch.
        eval_batch_size: rows of a batch otherwise.
        buffer: row groups of 65,536 rows that are read and shuffled together.
        num_workers: processes that read ahead.
        drop_last: whether the last, smaller batch of an epoch is left out.
        seed: of the split, the hashing, the down-sampling and the order.
        negative_rate: share of the training rows with label 0 that is kept, at random but always
            the same rows. Probabilities are corrected for it wherever the model is used.
    """

    prepared: PreparedSchema

    def __init__(
        self,
        folder: str | None = None,
        batch_size: int = 1024,
        eval_batch_size: int = 8192,
        buffer: int = 8,
        num_workers: int = 0,
        drop_last: bool = False,
        seed: int = 0,
        negative_rate: float = 1.0,
    ):
        super().__init__()
        self.folder = None if folder is None else Path(folder).expanduser()
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.buffer, self.num_workers, self.drop_last = buffer, num_workers, drop_last
        self.seed, self.negative_rate = seed, check_rate(negative_rate)

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """What the prepared folder depends on, as plain data."""

    @abstractmethod
    def build(self, folder: Path) -> None:
        """Prepares `folder`."""

    @property
    def prepared_folder(self) -> Path:
        """Where the prepared data lie."""
        if self.folder is not None:
            return self.folder
        cache = Path(os.environ.get("ATTN_RECSYS_CACHE", "~/.cache/attn-recsys")).expanduser()
        return cache / f"{type(self).__name__.lower()}-{self._digest()}"

    def _digest(self) -> str:
        key = self.key()
        if self.negative_rate != 1:
            key["negative_rate"] = self.negative_rate
        text = json.dumps(key, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def prepare_data(self) -> None:
        """Prepares the folder unless it is there.

        Raises:
            ValueError: the folder was made from other files or settings.
        """
        folder = self.prepared_folder
        stamp = folder / "source.txt"
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            self.build(folder)
            stamp.write_text(self._digest())
        elif self.folder is not None and stamp.is_file() and stamp.read_text() != self._digest():
            raise ValueError(
                f"{folder} was prepared from other files or settings (a vocabulary built for "
                "another schema); give another folder or remove this one"
            )

    def setup(self, stage: str | None = None) -> None:
        """Reads the schema."""
        self.prepared = load_prepared(self.prepared_folder)

    def loader(self, split: Literal["train", "val", "test"], *, shuffle: bool) -> StreamLoader:
        """The batches of one split."""
        train = split == "train" and shuffle
        dataset = ShardDataset(
            self.prepared_folder / split,
            self.prepared,
            self.batch_size if train else self.eval_batch_size,
            shuffle=shuffle,
            seed=self.seed,
            buffer=self.buffer,
            drop_last=self.drop_last and train,
        )
        return StreamLoader(dataset, self.num_workers)

    def train_dataloader(self) -> StreamLoader:
        """Training batches, shuffled by (seed, epoch)."""
        return self.loader("train", shuffle=True)

    def val_dataloader(self) -> StreamLoader:
        """Validation batches."""
        return self.loader("val", shuffle=False)

    def test_dataloader(self) -> StreamLoader:
        """Test batches."""
        return self.loader("test", shuffle=False)


class TableData(ClickData):
    """Any CSV, TSV or Parquet table, described by a YAML schema.

    Args:
        schema: a YAML file with `label` and `fields`, and perhaps `files` and `split`.
        files: paths or glob patterns of the table, if the schema does not name them.
        val_files: a table of its own for validation; else rows are split off `files`.
        test_files: likewise for the test.
        split: shares of training, validation and test rows.
        separator: between cells of text files; by their ending if None.
        folder, batch_size, eval_batch_size, buffer, num_workers, drop_last, seed, negative_rate: as
            in `ClickData`.
    """

    def __init__(
        self,
        schema: str,
        files: list[str] | None = None,
        val_files: list[str] | None = None,
        test_files: list[str] | None = None,
        split: tuple[float, float, float] = (0.8, 0.1, 0.1),
        separator: str | None = None,
        folder: str | None = None,
        batch_size: int = 1024,
        eval_batch_size: int = 8192,
        buffer: int = 8,
        num_workers: int = 0,
        drop_last: bool = False,
        seed: int = 0,
        negative_rate: float = 1.0,
    ):
        super().__init__(
            folder, batch_size, eval_batch_size, buffer, num_workers, drop_last, seed, negative_rate
        )
        content = read_yaml(schema)
        self.schema = Schema.read(schema)
        beside = Path(schema).expanduser().parent
        named = content.get("files", [])
        named = [named] if isinstance(named, str) else named
        self.files = files or [str(beside / name) for name in named]
        if not self.files:
            raise ValueError(f"{schema} names no files; add `files:` or give --data.files")
        if (val_files is None) != (test_files is None):
            raise ValueError("val_files and test_files belong together")
        self.val_files, self.test_files = val_files, test_files
        self.split = tuple(content.get("split", split))
        self.separator = separator

    def key(self) -> dict[str, Any]:
        """Schema, files with size and time, split."""
        parts = [self.files, self.val_files or [], self.test_files or []]
        stats = [
            [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in find_files(part)]
            for part in parts
            if part
        ]
        return {
            "schema": self.schema.to_dict(), "files": stats, "split": self.split,
            "seed": self.seed, "separator": self.separator,
        }  # fmt: skip

    def build(self, folder: Path) -> None:
        """Prepares the table."""
        prepare(self._blocks, self.schema, folder, seed=self.seed, negative_rate=self.negative_rate)

    def _blocks(self) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
        if self.val_files is None or self.test_files is None:
            yield from with_split(self._read(self.files), self.split, self.seed)
            return
        for number, part in enumerate((self.files, self.val_files, self.test_files)):
            for frame in self._read(part):
                yield frame, np.full(len(frame), number, np.uint8)

    def _read(self, files: Sequence[str]) -> Iterator[pl.DataFrame]:
        return read_blocks(files, self.schema.columns, separator=self.separator)


def with_split(
    frames: Iterator[pl.DataFrame], shares: Sequence[float], seed: int
) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
    """Splits rows at random by their number."""
    start = 0
    for frame in frames:
        rows = np.arange(start, start + len(frame))
        yield frame, split_of_rows(rows, shares, seed)
        start += len(frame)
