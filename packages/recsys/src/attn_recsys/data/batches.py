"""Batches straight from the row groups of Parquet shards."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed
from torch.utils.data import get_worker_info

from core_attn.training.data import Stream

from ..layout import Layout
from ..schema import GROUP, LABEL, WEIGHT, PreparedSchema


class Batch(TypedDict):
    """What a model and its task read."""

    index: Int[Tensor, "batch slots"]
    value: Float[Tensor, "batch slots"]
    label: Float[Tensor, " batch"]
    weight: NotRequired[Float[Tensor, " batch"]]
    group: NotRequired[Int[Tensor, " batch"]]  # equal numbers are equal groups, in one process


@dataclass(frozen=True)
class RowGroup:
    """One row group of one file."""

    path: Path
    number: int
    rows: int


class ShardDataset(Stream):
    """Batches of the shards in a folder, in an order that depends on (seed, epoch) only.

    Row groups are dealt to workers, shuffled, read `buffer` at a time, and the rows of a buffer are
    shuffled; a batch may straddle buffers. Memory holds one buffer per worker.

    Every process reads the same rows in the same order and takes its share of each batch, so that
    n processes with batch size b see what one sees with n * b. In training their shares are equal:
    of a worker's last batch so many rows are left out that they are. Otherwise every row counts,
    and a process for which none is left gives a last batch without rows, so that all give as many.

    Args:
        folder: with part-*.parquet.
        prepared: their schema.
        batch_size: rows of a batch and process.
        shuffle: whether to shuffle, as in training.
        seed: of the order.
        buffer: row groups of a buffer.
        drop_last: leave out each worker's last, smaller batch.

    Raises:
        ValueError: there is nothing to read, or less than one batch with `drop_last`.
    """

    def __init__(
        self,
        folder: str | Path,
        prepared: PreparedSchema,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        buffer: int = 4,
        drop_last: bool = False,
    ):
        if batch_size < 1 or buffer < 1:
            raise ValueError(f"batch_size and buffer must be >= 1, got {batch_size} and {buffer}")
        super().__init__(seed)
        self.layout, self.prepared = prepared.layout, prepared
        self.batch_size, self.shuffle = batch_size, shuffle
        self.buffer, self.drop_last = buffer, drop_last
        self.groups = []
        for path in sorted(Path(folder).glob("part-*.parquet")):
            metadata = pq.read_metadata(path)
            for i in range(metadata.num_row_groups):
                self.groups.append(RowGroup(path, i, metadata.row_group(i).num_rows))
        parallel = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if parallel else 0
        self.world = distributed.get_world_size() if parallel else 1
        rows = sum(group.rows for group in self.groups)
        if not rows:
            raise ValueError(f"{folder} holds no rows")
        if not self.batches(workers=1):
            raise ValueError(
                f"part has {rows:,} rows, batch {batch_size:,} in {self.world} process(es), "
                f"drop_last={drop_last}: nothing would be trained"
            )

    def dealt(self, worker: int, workers: int) -> list[RowGroup]:
        """The row groups of one worker, the same in every process."""
        return self.groups[worker::workers]

    def batches_of(self, worker: int, workers: int) -> int:
        """Batches of an epoch that one worker of this process gives."""
        rows = sum(group.rows for group in self.dealt(worker, workers))
        full, rest = divmod(rows, self.batch_size * self.world)
        return full + (self._is_one(rest) and not self.drop_last)

    def batches(self, workers: int) -> int:
        """Batches of an epoch in this process; in training as many in every process."""
        return sum(self.batches_of(worker, workers) for worker in range(workers))

    def _share(self, rows: int) -> range:
        """Which of the rows of a batch over all processes are this one's."""
        if self.shuffle:
            rows -= rows % self.world
        return range(self.rank, rows, self.world)

    def _is_one(self, rows: int) -> bool:
        """Whether so many rows over all processes are a batch."""
        return rows >= (self.world if self.shuffle else 1)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        given, turn = self._given(workers)
        worker = (worker + turn) % workers  # whose turn it is reads in the first process
        groups = self.dealt(worker, workers)
        if self.shuffle:
            order = self._random(worker, 0).permutation(len(groups))
            groups = [groups[i] for i in order]
        yield from self._stream(groups, given[worker] * self.batch_size * self.world, worker)

    def _given(self, workers: int) -> tuple[list[int], int]:
        """How many of the first `skip` batches each worker gave, in turns, and whose turn it is."""
        left = [self.batches_of(worker, workers) for worker in range(workers)]
        given = [0] * workers
        skip, turn = self.skip, 0
        while skip and any(left):
            if left[turn]:
                left[turn] -= 1
                given[turn] += 1
                skip -= 1
            turn = (turn + 1) % workers
        return given, turn

    def _random(self, worker: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.epoch, 0, worker, number])

    def _stream(self, groups: list[RowGroup], skip: int, worker: int) -> Iterator[Batch]:
        carried: Batch | None = None
        size = self.batch_size * self.world
        for number, start in enumerate(range(0, len(groups), self.buffer)):
            chosen = groups[start : start + self.buffer]
            rows = sum(group.rows for group in chosen)
            if skip >= rows:
                skip -= rows
                continue
            part = _joined([read_group(group, self.prepared) for group in chosen])
            order = None
            if self.shuffle:
                order = torch.from_numpy(self._random(worker, 1 + number).permutation(rows))
            while skip < rows:
                stop = skip + size - (len(carried["label"]) if carried else 0)
                batch = _rows(part, slice(skip, stop) if order is None else order[skip:stop])
                batch = _joined([carried, batch]) if carried else batch
                skip, carried = stop, batch if stop > rows else None
                if not carried:
                    yield self._mine(batch)
            skip = 0
        if carried is not None and not self.drop_last and self._is_one(len(carried["label"])):
            yield self._mine(carried)

    def _mine(self, batch: Batch) -> Batch:
        if self.world == 1:
            return batch
        share = self._share(len(batch["label"]))
        return _rows(batch, slice(share.start, share.stop, share.step))


def read_group(group: RowGroup, prepared: PreparedSchema) -> Batch:
    """Reads one row group as ids, values and labels."""
    table = pq.ParquetFile(group.path).read_row_group(group.number)
    return to_batch(table, prepared)


def to_batch(table: pa.Table, prepared: PreparedSchema) -> Batch:
    """Ids, values and labels of encoded rows; labels are -1 where there is no such column."""
    layout, size = prepared.layout, len(table)
    index = np.empty((size, layout.slots), np.int64)
    value = np.ones((size, layout.slots), np.float32)
    slot = 0
    for name, width, first in zip(layout.names, layout.widths, layout.firsts, strict=True):
        column = table.column(name).combine_chunks()
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            _fill_lists(column, index[:, slot : slot + width], value[:, slot : slot + width])
        elif name in layout.numerical:
            _fill_numbers(column, prepared, name, first, index[:, slot], value[:, slot])
        else:
            if column.null_count:
                value[:, slot] = _as_numpy(column.is_valid().cast(pa.uint8()))
            index[:, slot] = _as_numpy(column, first)
        slot += width
    label = (
        _as_numpy(table.column(LABEL).combine_chunks()).astype(np.float32)
        if LABEL in table.column_names
        else np.full(size, -1, np.float32)
    )
    batch: Batch = {
        "index": torch.from_numpy(index),
        "value": torch.from_numpy(value),
        "label": torch.from_numpy(label),
    }
    if WEIGHT in table.column_names:
        weight = _as_numpy(table.column(WEIGHT).combine_chunks())
        batch["weight"] = torch.from_numpy(weight.astype(np.float32))
    if GROUP in table.column_names:
        codes = pl.Series(table.column(GROUP).combine_chunks()).hash(seed=0)
        batch["group"] = torch.from_numpy(codes.to_numpy().astype(np.int64))
    return batch


def _fill_numbers(
    column: pa.Array,
    prepared: PreparedSchema,
    name: str,
    first: int,
    index: np.ndarray,
    value: np.ndarray,
) -> None:
    index[:] = first
    value[:] = _as_numpy(column)
    if column.null_count and name in prepared.missing:
        absent = _as_numpy(column.is_null().cast(pa.uint8())).astype(bool)
        index[absent], value[absent] = prepared.missing[name], 1


def _fill_lists(column: pa.ListArray, index: np.ndarray, value: np.ndarray) -> None:
    """Writes each list from the left; the rest is padding, id 0 with value 0."""
    index[:], value[:] = 0, 0
    lengths = _as_numpy(column.value_lengths())
    rows = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    places = np.arange(len(rows)) - np.repeat(starts, lengths)
    index[rows, places] = _as_numpy(column.flatten())
    value[rows, places] = 1


def _as_numpy(column: pa.Array, fill: int = 0) -> np.ndarray:
    """Numbers, with `fill` for nulls; pyarrow's own `to_numpy` and `fill_null` import pandas.

    Not through polars, whose threads do not live on in a forked worker.
    """
    if not len(column):
        return np.empty(0, np.int64)
    bare = pa.Array.from_buffers(
        column.type, len(column), [None, column.buffers()[1]], offset=column.offset
    )
    numbers = np.from_dlpack(bare)
    if not column.null_count:
        return numbers
    valid = np.from_dlpack(column.is_valid().cast(pa.uint8()))
    return np.where(valid, numbers, numbers.dtype.type(fill))


def _rows(batch: Batch, which: slice | Tensor) -> Batch:
    return {key: x[which] for key, x in batch.items()}  # type: ignore[return-value]


def _joined(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}  # type: ignore


__all__ = ["Batch", "Layout", "RowGroup", "ShardDataset", "read_group", "to_batch"]
