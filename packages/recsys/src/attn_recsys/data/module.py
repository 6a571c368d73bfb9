"""Data modules: prepare once, then load batches."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from pytorch_lightning import LightningDataModule

from core_attn.training.data import StreamLoader

from ..notes import note
from ..schema import PreparedSchema, Schema, read_yaml
from .batches import Batch, ShardDataset
from .blocks import find_files, read_blocks
from .prepare import load_prepared, prepare
from .text import moments, plain_text
from .vocabulary import check_rate, check_shares, split_of_rows, stable_hash


@dataclass(eq=False, kw_only=True)
class ClickData(LightningDataModule, ABC):
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

    folder: str | None = None
    batch_size: int = 1024
    eval_batch_size: int = 8192
    buffer: int = 8
    num_workers: int = 0
    drop_last: bool = False
    seed: int = 0
    negative_rate: float = 1.0

    def __post_init__(self):
        super().__init__()
        self.prepared: PreparedSchema
        check_rate(self.negative_rate)

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
            return Path(self.folder).expanduser()
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

    def val_dataloader(self) -> StreamLoader | list:
        """Validation batches; none where no rows are held out for it."""
        return self.loader("val", shuffle=False) if self.prepared.rows["val"] else []

    def test_dataloader(self) -> StreamLoader:
        """Test batches."""
        return self.loader("test", shuffle=False)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Moves a batch to an accelerator; on a CPU it is there already."""
        if device.type == "cpu":
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


@dataclass(eq=False)
class TableData(ClickData):
    """Any CSV, TSV or Parquet table, described by a YAML schema.

    Args:
        schema: a YAML file with `label` and `fields`, and perhaps `files`, `split`, `time` and
            `separator`; where it is missing, what `extends` was trained with.
        files: paths, folders or glob patterns of the table, if the schema does not name them.
        val_files: a table of its own for validation; else rows are split off `files`.
        test_files: likewise for the test.
        split: shares of training, validation and test rows; the schema's come first.
        split_by: how rows are dealt to the parts: at "random"; by "time", the last ones to the
            test, after the column `time`; or by "group", all rows of a group to the same part.
        time: the column that says when, a number, a date or a time.
        separator: between cells of text files; by their ending if None.
        extends: a checkpoint whose vocabularies and ranges are kept, and extended by new values.
    """

    schema: str
    files: list[str] | str | None = None
    val_files: list[str] | str | None = None
    test_files: list[str] | str | None = None
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    split_by: Literal["random", "time", "group"] | None = None
    time: str | None = None
    separator: str | None = None
    extends: str | None = None

    def __post_init__(self):
        super().__post_init__()
        content: dict[str, Any] = {}
        if self.extends is not None and not Path(self.schema).expanduser().is_file():
            from ..scoring import Scorer

            before = Scorer.load(self.extends).prepared
            self.table, content = before.schema, {"separator": before.separator}
            note(f"schema file {self.schema} is not here: that of {self.extends} is taken")
        else:
            content, self.table = read_yaml(self.schema), Schema.read(self.schema)
        beside = Path(self.schema).expanduser().parent
        named = content.get("files", [])
        named = [named] if isinstance(named, str) else named
        self.sources = self.files or [str(beside / name) for name in named]
        if not self.sources:
            raise ValueError(f"{self.schema} names no files; add `files:` or give --data.files")
        if (self.val_files is None) != (self.test_files is None):
            raise ValueError("val_files and test_files belong together")
        self.shares = check_shares(content.get("split", self.split))
        self.when = self.time or content.get("time")
        self.when = None if self.when is None else str(self.when)
        self.between = self.separator or content.get("separator")
        self.dealt_by = self.split_by or ("time" if self.when else "random")
        if self.dealt_by == "time" and not self.when:
            raise ValueError("split_by time needs the column: `time:` in the schema or --data.time")
        if self.dealt_by == "group" and not self.table.group:
            raise ValueError("split_by group needs the schema's `group:`")

    def key(self) -> dict[str, Any]:
        """Schema, files with size and time, split."""
        from ..scoring import Scorer

        parts = [self.sources, self.val_files or [], self.test_files or []]
        stats = [
            [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in find_files(part)]
            for part in parts
            if part
        ]
        base = {} if self.extends is None else {"extends": Scorer.load(self.extends).prepared.hash}
        return base | {
            "schema": self.table.to_dict(), "files": stats, "split": self.shares, "version": 4,
            "seed": self.seed, "separator": self.between, "by": [self.dealt_by, self.when],
        }  # fmt: skip

    def build(self, folder: Path) -> None:
        """Prepares the table."""
        from ..scoring import Scorer
        from ..warm import extended

        base: dict[str, Any] = {}
        if self.extends is not None:
            scorer = Scorer.load(self.extends)
            base = {
                "ranges": scorer.prepared.ranges,
                "kinds": scorer.prepared.kinds,
                "number": lambda schema, counters: extended(
                    schema, counters, scorer.vocabulary, scorer.prepared
                ),
            }
        prepare(
            self._blocks,
            self.table,
            folder,
            seed=self.seed,
            negative_rate=self.negative_rate,
            separator=self.between,
            **base,
        )

    def _blocks(self) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
        if self.val_files is None or self.test_files is None:
            frames = self._read(self.sources)
            if self.dealt_by == "time":
                yield from with_split_by_time(frames, str(self.when), self._edges())
            elif self.dealt_by == "group":
                yield from with_split_by_group(
                    frames, str(self.table.group), self.shares, self.seed
                )
            else:
                yield from with_split(frames, self.shares, self.seed)
            return
        for number, part in enumerate((self.sources, self.val_files, self.test_files)):
            for frame in self._read(part):
                yield frame, np.full(len(frame), number, np.uint8)

    def _read(
        self, files: Sequence[str] | str, columns: Sequence[str] | None = None
    ) -> Iterator[pl.DataFrame]:
        extra = [self.when] if self.dealt_by == "time" and self.when else []
        return read_blocks(
            files,
            columns or list(dict.fromkeys([*self.table.columns, *extra])),
            separator=self.between,
            null_values=self.table.null_values,
        )

    def _edges(self) -> tuple[float, float]:
        """When validation begins, and when the test does."""
        column = str(self.when)
        times = [times_of(frame, column) for frame in self._read(self.sources, [column])]
        ordered = np.sort(np.concatenate(times))
        first, second = np.cumsum(self.shares)[:2] * len(ordered)
        later = [*ordered, np.inf]
        return float(later[round(first)]), float(later[round(second)])


def with_split(
    frames: Iterator[pl.DataFrame], shares: Sequence[float], seed: int
) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
    """Splits rows at random by their number."""
    start = 0
    for frame in frames:
        rows = np.arange(start, start + len(frame))
        yield frame, split_of_rows(rows, shares, seed)
        start += len(frame)


def with_split_by_group(
    frames: Iterator[pl.DataFrame], column: str, shares: Sequence[float], seed: int
) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
    """Splits groups at random, each with all its rows."""
    for frame in frames:
        group = stable_hash(plain_text(frame[column]).fill_null(""), 2**31 - 1, seed)
        yield frame, split_of_rows(group.to_numpy().astype(np.int64), shares, seed)


def with_split_by_time(
    frames: Iterator[pl.DataFrame], column: str, edges: tuple[float, float]
) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
    """Splits rows by when they were: before the first edge, before the second, later."""
    for frame in frames:
        place = np.searchsorted(edges, times_of(frame, column), side="right")
        yield frame, place.astype(np.uint8)


def times_of(frame: pl.DataFrame, column: str) -> np.ndarray:
    """When each row was, as a number that rises with time.

    Raises:
        ValueError: a cell is empty, or neither a number nor a time.

    Example:
        >>> times_of(pl.DataFrame({"t": ["2024-01-02", "2024-01-01 12:00"]}), "t").argsort()
        array([1, 0])
    """
    cells = frame[column]
    if isinstance(cells.dtype, pl.Date | pl.Datetime):  # of any unit, as parts of a table differ
        numbers = cells.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64)
    elif cells.dtype.is_temporal() or cells.dtype.is_numeric():
        numbers = cells.cast(pl.Float64).fill_nan(None)
    else:
        text = plain_text(cells)
        numbers = text.cast(pl.Float64, strict=False)
        if numbers.null_count() > (found := moments(text)).null_count():
            numbers = found
    if numbers.null_count():
        at = numbers.is_null().arg_max() or 0
        raise ValueError(
            f"time column {column} has {cells[at]!r}; times are numbers or like 2024-01-31 12:00:00"
        )
    return numbers.to_numpy()
