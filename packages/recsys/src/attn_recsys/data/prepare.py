"""Two passes over a table of any size: values are counted, then shards of table rows written."""

import dataclasses
import functools
import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ..notes import note
from ..schema import GROUP, LABEL, PreparedSchema, Schema
from . import encode
from .numbering import Vocabulary, number_by_field
from .numbers import NumberSample, as_numbers, not_too_large
from .text import as_lists, as_text, kind_of, plain_text, whole_lists
from .vocabulary import Counter, check_rate, sampled_rows

SPLITS = ("train", "val", "test")
ROW_GROUP = 1 << 16
SHARD = 16 * ROW_GROUP
KINDS = ("integer", "boolean", "datetime")

Blocks = Callable[[], Iterable[tuple[pl.DataFrame, np.ndarray]]]


@dataclass(frozen=True)
class Block:
    """Rows of the source that are kept, with their numbers there."""

    frame: pl.DataFrame
    label: np.ndarray
    split: np.ndarray
    rows: pl.Series


def prepare(
    blocks: Blocks,
    schema: Schema,
    folder: str | Path,
    *,
    seed: int = 0,
    count_splits: Sequence[str] = ("train",),
    number: Callable[[Schema, dict[str, Counter]], Vocabulary] = number_by_field,
    count_empty: bool = False,
    negative_rate: float = 1.0,
    separator: str | None = None,
    ranges: dict[str, list[float]] | None = None,
    kinds: Mapping[str, str] = MappingProxyType({}),
    log: Callable[[str], None] = lambda line: None,
) -> PreparedSchema:
    """Writes `folder` with `schema.json`, a vocabulary per field and shards per split.

    Nothing appears under the name `folder` before it is complete.

    Args:
        blocks: starts one pass: frames, each with its rows' split (0 train, 1 val, 2 test).
        schema: the fields.
        folder: where to write; it must not exist.
        seed: of the hashing and the down-sampling.
        count_splits: the splits whose values are counted; ("train",) leaks nothing.
        number: gives the counted values their table rows.
        count_empty: whether an empty cell is counted as a value and gets a row, never used, as in
            the official preparation of Criteo.
        negative_rate: share of the training rows with label 0 that is kept; the others are as if
            they were not there. Which are kept depends on the seed and the row's number only.
        separator: between the cells of the text files, to be kept.
        ranges: what the transforms need, where it is known already.
        kinds: what fields of categories hold, where it is known already.
        log: told of the progress.

    Returns:
        What `schema.json` holds.

    Raises:
        FileExistsError: `folder` exists.
        ValueError: a cell or label that does not fit, an empty field, a split without rows.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it to prepare again")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        counted = {SPLITS.index(name) for name in count_splits}
        kept = functools.partial(_kept, blocks, schema, seed, check_rate(negative_rate))
        counters, found, kinds = _count(kept, schema, counted, count_empty, kinds, log)
        ranges = found if ranges is None else ranges
        vocabulary = number(schema, counters)
        del counters
        prepared = _write(kept, schema, vocabulary, ranges, kinds, seed, part, log)
        prepared = dataclasses.replace(prepared, negative_rate=negative_rate, separator=separator)
        (part / "schema.json").write_text(json.dumps(prepared.to_dict(), indent=1))
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return prepared


def _kept(blocks: Blocks, schema: Schema, seed: int, negative_rate: float) -> Iterator[Block]:
    start = 0
    for frame, split in blocks():
        label = encode.labels(frame, schema, start)
        keep = label >= 0
        rows = np.arange(start, start + len(frame))
        if negative_rate < 1:
            keep &= (split != 0) | (label != 0) | sampled_rows(rows, negative_rate, seed)
        size = len(frame)
        if not keep.all():
            frame, split = frame.filter(pl.Series(keep)), split[keep]
            label, rows = label[keep], rows[keep]
        yield Block(frame, label, split, pl.Series(rows))
        start += size


def _count(
    kept: Callable[[], Iterator[Block]],
    schema: Schema,
    counted: set[int],
    count_empty: bool,
    known: Mapping[str, str],
    log: Callable[[str], None],
) -> tuple[dict[str, Counter], dict[str, list[float]], dict[str, str]]:
    """First pass: the values of categories and their kinds, the ranges of numbers."""
    counters = {
        field.name: Counter(field.min_count)
        for field in schema.fields
        if field.kind in ("categorical", "multi") and not field.buckets
    }
    samples = {
        field.name: NumberSample(field) for field in schema.fields if field.kind == "numerical"
    }
    filled = dict.fromkeys(schema.names, False)
    kinds = {f.name: set(KINDS) for f in schema.fields if f.kind in ("categorical", "multi")}
    longer = {f.name: 0 for f in schema.fields if f.is_list}
    total = read = ones = 0
    labels: dict[str, None] = {}
    for block in kept():
        ones += int(block.label.sum())
        if schema.positive is not None and not ones and len(labels) < 5:
            labels |= dict.fromkeys(plain_text(block.frame[schema.label]).unique()[:5])
        chosen = np.isin(block.split, list(counted))
        frame, rows = block.frame, block.rows
        total += len(frame)
        if not chosen.all():
            frame, rows = frame.filter(pl.Series(chosen)), rows.filter(pl.Series(chosen))
        read += len(frame)
        for field in schema.fields:
            cells = frame[field.name]
            if field.kind == "numerical":
                numbers = as_numbers(cells, field, rows, schema=schema)
                numbers = not_too_large(numbers, field, rows).drop_nulls()
                samples[field.name].update(numbers.to_numpy())
                filled[field.name] |= len(numbers) > 0
                continue
            if field.is_list:
                whole = whole_lists(cells, field)
                longer[field.name] += int((whole.list.len() > field.max_values).sum() or 0)
                lists = as_lists(cells, field).to_frame("value").with_columns(rows.alias("r"))
                flat = lists.explode("value")
                values, places = flat["value"], flat["r"]
            else:
                values, places = as_text(cells, field), rows
            filled[field.name] |= values.null_count() < len(values)
            if kinds.get(field.name):
                kinds[field.name] &= kind_of(values)
            if field.name in counters:
                values = values.fill_null("") if count_empty else values
                counters[field.name].update(values, places)
        log(f"counted {total:,} rows")
    if schema.positive is not None and not ones:
        raise ValueError(
            f"label column {schema.label}: no row is {schema.positive!r}, the positive "
            f"value; it has {', '.join(map(repr, labels)) or 'no rows'}"
        )
    if not read:
        raise ValueError(f"no row is left to train on, of {total:,} with a label")
    empty = [name for name, found in filled.items() if not found]
    if empty:
        raise ValueError(
            f"field {', '.join(empty)}: empty in every counted row; leave it out of the schema"
        )
    found = {name: next((k for k in KINDS if k in kinds[name]), "text") for name in kinds}
    found |= known
    for field in schema.fields:
        if field.name in counters and found[field.name] != "text":
            kind = found[field.name]
            counters[field.name].rename(lambda x, f=field, k=kind: as_text(x, f, k))
    for name, sample in samples.items():
        sample.warn(name)
    for field in schema.fields:
        if longer.get(field.name):
            note(
                f"field {field.name}: {longer[field.name] / read:.1%} of the cells hold more than "
                f"{field.max_values} values, of which the {field.keep} are kept; raise max_values "
                "or set keep",
            )
    ranges = {name: sample.span() for name, sample in samples.items() if sample.span()}
    return counters, ranges, found


def _write(
    kept: Callable[[], Iterator[Block]],
    schema: Schema,
    vocabulary: Vocabulary,
    ranges: dict[str, list[float]],
    kinds: dict[str, str],
    seed: int,
    part: Path,
    log: Callable[[str], None],
) -> PreparedSchema:
    """Second pass: the shards, and what is known of them."""
    writers = [ShardWriter(part / name) for name in SPLITS]
    ones, total, weighed = 0, 0, np.zeros(3)
    rare, cells = dict.fromkeys(vocabulary.rare, 0), dict.fromkeys(vocabulary.rare, 0)
    empty = {field.name: 0 for field in schema.fields}
    for block in kept():
        coded = encode.encoded(block.frame, schema, vocabulary, ranges, seed, block.rows, kinds)
        extra = [pl.Series(LABEL, block.label)]
        if schema.group:
            extra.append(plain_text(block.frame[schema.group]).alias(GROUP))
        if schema.weight:
            extra.append(encode.weights(block.frame, schema, block.rows))
            weighed += np.bincount(block.split, extra[-1].to_numpy(), minlength=3)
        coded = coded.with_columns(extra)
        ones += int(block.label[block.split == 0].sum())
        for name in empty:
            learned = vocabulary.missing.get(name)
            none = coded[name].is_null() if learned is None else coded[name] == learned
            empty[name] += int(none.sum())
        held_out = coded.filter(pl.Series(block.split == 1))
        for name, row in vocabulary.rare.items():
            ids = held_out[name]
            ids = ids.explode() if isinstance(ids.dtype, pl.List) else ids
            rare[name] += int((ids == row).sum() or 0)
            cells[name] += len(ids) - ids.null_count()
        for number, writer in enumerate(writers):
            writer.add(coded.filter(pl.Series(block.split == number)))
        total += len(coded)
        log(f"wrote {total:,} rows")
    rows = {name: writer.close() for name, writer in zip(SPLITS, writers, strict=True)}
    if not rows["train"]:
        raise ValueError(f"no training rows: the splits have {rows}")
    for name, weight in zip(SPLITS, weighed, strict=True):
        if schema.weight and rows[name] and not weight:
            raise ValueError(
                f"weight column {schema.weight}: all rows of part {name} have weight 0"
            )
    (part / "vocabulary").mkdir()
    digest = 0
    for name, table in vocabulary.tables.items():
        table.write_parquet(vocabulary_file(part, name), compression="lz4")
        text = table.select(pl.concat_str("value", "id", separator="\t"))["value"].str.join("\n")
        digest = zlib.crc32(name.encode() + (text[0] or "").encode(), digest)
    return PreparedSchema(
        schema=schema,
        layout=vocabulary.layout,
        features=vocabulary.features,
        ranges=ranges,
        rows=rows,
        base_rate=ones / rows["train"],
        rare=vocabulary.rare,
        missing=vocabulary.missing,
        unseen={name: rare[name] / max(cells[name], 1) for name in rare},
        empty={name: count / total for name, count in empty.items()},
        seed=seed,
        vocabulary_hash=f"{digest:08x}",
        kinds=kinds,
    )


class ShardWriter:
    """Writes frames as Parquet files of full row groups.

    Args:
        folder: gets part-00000.parquet, ...
    """

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder = folder
        self.waiting: list[pl.DataFrame] = []
        self.held = self.written = 0
        self.writer: pq.ParquetWriter | None = None

    def add(self, frame: pl.DataFrame) -> None:
        """Takes rows; full row groups go to the disk."""
        if len(frame):
            self.waiting.append(frame)
            self.held += len(frame)
        while self.held >= ROW_GROUP:
            whole = pl.concat(self.waiting)
            self._write(whole[:ROW_GROUP])
            self.waiting, self.held = [whole[ROW_GROUP:]], len(whole) - ROW_GROUP

    def close(self) -> int:
        """Writes what is left and returns the number of all rows."""
        if self.held:
            self._write(pl.concat(self.waiting))
        if self.writer is not None:
            self.writer.close()
        return self.written

    def _write(self, frame: pl.DataFrame) -> None:
        table: pa.Table = frame.to_arrow()
        if self.writer is not None and self.written % SHARD == 0:
            self.writer.close()
            self.writer = None
        if self.writer is None:
            path = self.folder / f"part-{self.written // SHARD:05d}.parquet"
            self.writer = pq.ParquetWriter(path, table.schema)
        self.writer.write_table(table, row_group_size=ROW_GROUP)
        self.written += len(table)


def load_prepared(folder: str | Path) -> PreparedSchema:
    """Reads the schema of a prepared folder.

    Raises:
        FileNotFoundError: the folder is missing or was not completed.
        ValueError: it was edited.
    """
    path = Path(folder) / "schema.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no prepared folder: it has no schema.json")
    return PreparedSchema.from_dict(json.loads(path.read_text()))


def vocabulary_file(folder: str | Path, name: str) -> Path:
    """Where the vocabulary of a field lies; its name may hold any character.

    Example:
        >>> vocabulary_file("p", "price / item").name
        'price%20%2F%20item.parquet'
    """
    text = quote(name, safe="")
    if len(text) > 200:  # than file systems take
        text = f"{text[:180]}-{zlib.crc32(name.encode()):08x}"
    return Path(folder) / "vocabulary" / f"{text}.parquet"


def load_vocabulary(folder: str | Path, prepared: PreparedSchema) -> Vocabulary:
    """Reads the vocabularies of a prepared folder, to encode further rows the same way.

    Those that `map_vocabulary` wrote stay in their files, of which memory maps what is read.
    """
    tables = {}
    for name in prepared.schema.names:
        path = vocabulary_file(folder, name)
        if (mapped := path.with_suffix(".arrow")).is_file():
            whole = pa.ipc.open_file(pa.memory_map(str(mapped))).read_all()
            tables[name] = pl.DataFrame(pl.from_arrow(whole))
        elif path.is_file():
            tables[name] = pl.read_parquet(path)
    return Vocabulary(tables, prepared.rare, prepared.missing, prepared.layout, prepared.features)


def map_vocabulary(folder: str | Path, target: str | Path) -> None:
    """Writes the vocabularies of a prepared folder into another, so that memory can map them."""
    to = Path(target) / "vocabulary"
    to.mkdir(parents=True, exist_ok=True)
    for path in (Path(folder) / "vocabulary").glob("*.parquet"):
        pl.scan_parquet(path).sink_ipc(to / f"{path.stem}.arrow", compression="uncompressed")
