"""Scoring and measuring of files, calibration, export with the tables, and latency."""

import dataclasses
import json
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from core_attn.training.files import read_checkpoint, write_checkpoint

from . import metrics
from .calibration import Isotonic, Platt, fit_calibrator
from .data import encode
from .data.batches import Batch
from .data.blocks import common_types, find_files, read_blocks
from .data.text import flat, plain_text
from .layout import Layout
from .models import create
from .output import Output, written
from .scoring import Met, Scorer


def _opened(
    ckpt: str | Path,
    separator: str | None,
    null_values: Sequence[str] | None,
    decimal_comma: bool | None,
) -> Scorer:
    """A scorer that reads text files as in training, but for what is said."""
    scorer = Scorer.load(ckpt)
    said: dict[str, Any] = {"null_values": null_values, "decimal_comma": decimal_comma}
    said = {name: value for name, value in said.items() if value is not None}
    schema = dataclasses.replace(scorer.prepared.schema, **said)
    scorer.prepared = dataclasses.replace(
        scorer.prepared, schema=schema, separator=separator or scorer.prepared.separator
    )
    return scorer


def predict_files(
    ckpt: str | Path,
    files: str | Sequence[str],
    output: str | Path,
    *,
    batch_size: int = 8192,
    keep: Sequence[str] = (),
    separator: str | None = None,
    allow_unseen: bool = False,
    null_values: Sequence[str] | None = None,
    decimal_comma: bool | None = None,
) -> tuple[int, float, list[str]]:
    """Streams rows through a checkpoint; memory does not grow with the files.

    Args:
        ckpt: the checkpoint.
        files: Parquet, CSV or TSV files, folders or patterns, with the schema's columns; a label is
            not needed.
        output: the table to write, with the columns `row`, those of `keep`, and `probability`; the
            ending says how.
        batch_size: rows scored at once.
        keep: columns that are copied.
        separator: between cells of text files; that of the training files if None.
        allow_unseen: whether a field may hold no value that was seen in training.
        null_values: spellings of an empty cell in text files; those of the schema if None.
        decimal_comma: whether numbers there are written 3,5; as in the schema if None.

    Returns:
        Rows, seconds, and what in the rows is not as it was in training.

    Raises:
        ValueError: a cell that does not fit its field, or a field whose values are all unseen.
    """
    scorer, writer = _opened(ckpt, separator, null_values, decimal_comma), Output(output)
    if any(path.resolve() == writer.path.resolve() for path in find_files(files)):
        raise ValueError(f"output {output} is one of the files that are read")
    keep = list(dict.fromkeys(keep))
    if taken := {"row", "probability"} & set(keep):
        raise ValueError(f"keep: {', '.join(sorted(taken))} is a column that the output has itself")
    met, start, began = Met(scorer), 0, time.perf_counter()
    schema = scorer.prepared.schema
    columns = list(dict.fromkeys([*schema.names, *keep]))
    types: dict[str, pl.DataType] = {}
    with writer:
        for frame in read_blocks(
            files,
            columns,
            separator=scorer.prepared.separator,
            null_values=schema.null_values,
        ):
            if writer.is_text and (lists := [n for n in keep if frame[n].dtype.is_nested()]):
                raise ValueError(f"keep: {', '.join(lists)} holds lists; write a .parquet file")
            coded = scorer.coded(frame, start)
            met.update(frame, coded)
            p = scorer.probabilities(scorer.batch(coded), batch_size)
            rows = pl.int_range(start, start + len(frame), eager=True).alias("row")
            if writer.is_text:
                kept = [written(flat(frame[name], f"keep: {name}")) for name in keep]
            else:
                types = types or common_types(files, keep)
                kept = [frame[name].cast(types[name]) for name in keep]
            writer.write(pl.DataFrame([rows, *kept, pl.Series("probability", p.numpy())]))
            start += len(frame)
        if not start:
            raise ValueError(f"{', '.join(map(str, find_files(files)))}: no rows")
        if met.strangers and not allow_unseen:
            raise ValueError(
                f"field {', '.join(met.strangers)}: no value was seen in training; is it another "
                "column, or written otherwise? --allow_unseen true scores it all the same"
            )
    return start, time.perf_counter() - began, met.notes()


class Measured(NamedTuple):
    """What a checkpoint does on labelled rows.

    Attributes:
        rows: how many.
        found: metrics of all of them.
        slices: for each value of a column, the most frequent first, its rows and their metrics.
        notes: what in the rows is not as it was in training.
    """

    rows: int
    found: dict[str, float]
    slices: list[dict[str, Any]]
    notes: list[str]


def evaluate(
    ckpt: str | Path,
    files: str | Sequence[str],
    separator: str | None = None,
    *,
    group: str | None = None,
    slice_by: str | None = None,
    cutoffs: Sequence[int] = (5, 10),
    most: int = 20,
    null_values: Sequence[str] | None = None,
    decimal_comma: bool | None = None,
) -> Measured:
    """Measures a checkpoint on labelled files.

    Args:
        ckpt: the checkpoint.
        files: files, folders or patterns with the schema's columns and its label.
        separator: between cells of text files; that of the training files if None.
        group: a column, within whose groups is measured too; the schema's if None.
        slice_by: a column, for each of whose values is measured apart.
        cutoffs: rows of each group that count for NDCG and reciprocal rank.
        most: so many slices at most.
        null_values: spellings of an empty cell in text files; those of the schema if None.
        decimal_comma: whether numbers there are written 3,5; as in the schema if None.

    Raises:
        ValueError: a cell or label that does not fit, or no rows.
    """
    if any(k < 1 for k in cutoffs):
        raise ValueError(f"at: a group's first rows are 1 or more, got {list(cutoffs)}")
    scorer = _opened(ckpt, separator, null_values, decimal_comma)
    group = group or scorer.prepared.schema.group
    schema = scorer.prepared.schema
    columns = [name for name in (group, slice_by, schema.weight) if name is not None]
    labels, logits, met, beside = _label_and_logits(scorer, files, columns)
    calibrator = scorer.probability.calibrator
    p = (logits.sigmoid() if calibrator is None else calibrator(logits)).double().numpy()
    weight = None
    if schema.weight is not None:
        rows = pl.int_range(len(beside), eager=True)
        weight = encode.weights(beside, schema, rows).to_numpy().astype(np.float64)
    found = metrics.summary(labels, p, weight)
    if group is not None:
        codes = plain_text(beside[group]).fill_null("").rank("dense").to_numpy()
        found |= metrics.by_group(labels, p, codes.astype(np.int64), cutoffs)
    slices = []
    if slice_by is not None:
        values = plain_text(beside[slice_by]).fill_null("(empty)")
        counts = values.value_counts(sort=True, name="rows of a slice")
        for value, count in counts.head(most).rows():
            own = (values == value).to_numpy()
            slices.append({slice_by: value, "rows": count} | _summary(labels, p, weight, own))
        rest = ~values.is_in(counts[slice_by].head(most).implode()).to_numpy()
        if rest.any():
            name = f"({len(counts) - most:,} others)"
            row = {slice_by: name, "rows": int(rest.sum())}
            slices.append(row | _summary(labels, p, weight, rest))
    return Measured(len(labels), found, slices, met.notes())


def _summary(
    labels: np.ndarray, p: np.ndarray, weight: np.ndarray | None, rows: np.ndarray
) -> dict[str, float]:
    return metrics.summary(labels[rows], p[rows], None if weight is None else weight[rows])


def calibrate(
    ckpt: str,
    method: Literal["platt", "isotonic", "none"],
    out: str | Path | None = None,
    files: str | Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Fits a calibration on held-out rows and keeps it in the checkpoint.

    Args:
        ckpt: the checkpoint.
        method: as in `fit_calibrator`; "none" takes a calibration away.
        out: the checkpoint to write; `ckpt` itself if None.
        files: labelled files to fit it on; the validation rows of the training table if None.

    Returns:
        Log loss and calibration of the rows on which it was fitted, and of test rows if the
        training table is used, before and after.

    Raises:
        ValueError: there are no such rows, or all have the same label.
    """
    content = read_checkpoint(ckpt)
    rows: list[dict[str, Any]] = []
    if method != "none":
        fitted = None
        for part, labels, logits in _held_out(ckpt, files):
            if fitted is None:
                fitted = fit_calibrator(method, logits.numpy(), labels)
                content["calibration"] = json.dumps(fitted.to_dict())
            rows += _before_and_after(part, labels, logits, fitted)
    else:
        content.pop("calibration", None)
    write_checkpoint(content, out or ckpt)
    return rows


def _held_out(
    ckpt: str, files: str | Sequence[str] | None
) -> Iterable[tuple[str, np.ndarray, Tensor]]:
    if files is not None:
        labels, logits, *_ = _label_and_logits(Scorer.load(ckpt), files)
        yield "held out", labels, logits
        return
    from core_attn.training import opened

    from .data import ClickData
    from .tasks import ClickTask

    trained_on = read_checkpoint(ckpt)["config"]["data"]["init_args"].get("schema")
    if trained_on is not None and not Path(trained_on).is_file():
        raise FileNotFoundError(
            f"the training table, {trained_on}, is not here; --input FILE takes other labelled rows"
        )
    _, task, data, _ = opened(ckpt, "test")
    if not isinstance(task, ClickTask) or not isinstance(data, ClickData):
        raise ValueError(f"{ckpt} holds a {type(task).__name__}, not a click task")
    data.prepared.check_same(task.schema_hash, "the checkpoint")
    parts: dict[str, Iterable[Batch]] = {"validation": data.val_dataloader()}
    if data.prepared.rows["test"]:
        parts["test"] = data.test_dataloader()
    for part, batches in parts.items():
        labels, logits = [np.empty(0)], [torch.empty(0)]
        with torch.inference_mode():
            for batch in batches:
                labels.append(batch["label"].numpy())
                logits.append(task.logits(batch))
        yield part, np.concatenate(labels), torch.cat(logits)


def _label_and_logits(
    scorer: Scorer,
    files: str | Sequence[str],
    beside: Sequence[str] = (),
) -> tuple[np.ndarray, Tensor, Met, pl.DataFrame]:
    """Labels and log odds of the labelled rows, and their columns `beside`."""
    prepared, met = scorer.prepared, Met(scorer)
    schema, start = prepared.schema, 0
    labels, logits, kept = [], [], []
    beside = list(dict.fromkeys(beside))
    types = common_types(files, beside)
    for frame in read_blocks(
        files,
        list(dict.fromkeys([*schema.names, schema.label, *beside])),
        separator=prepared.separator,
        null_values=schema.null_values,
    ):
        label = encode.labels(frame, schema, start)
        coded = scorer.coded(frame, start)
        met.update(frame, coded)
        start += len(frame)
        mask = pl.Series(label >= 0)
        labels.append(label[label >= 0].astype(np.float32))
        logits.append(scorer.logits(scorer.batch(coded.filter(mask))))
        kept.append(frame.filter(mask).select(pl.col(name).cast(types[name]) for name in beside))
    if not labels or not sum(map(len, labels)):
        raise ValueError(f"{', '.join(map(str, find_files(files)))}: no labelled rows")
    return np.concatenate(labels), torch.cat(logits), met, pl.concat(kept)


def _before_and_after(
    part: str, labels: np.ndarray, logits: Tensor, calibrator: Platt | Isotonic
) -> list[dict[str, Any]]:
    found = {"as trained": logits.sigmoid(), calibrator.method: calibrator(logits)}
    return [
        {
            "rows": part,
            "probabilities": name,
            "log loss": metrics.log_loss(labels, p.double().numpy()),
            "calibration error": metrics.expected_calibration_error(labels, p.double().numpy()),
        }
        for name, p in found.items()
    ]


def export_with_tables(
    ckpt: str, format: Literal["onnx", "torch"], out: str | None, tolerance: float
) -> int:
    """Exports the network, and writes `schema.json` and the vocabularies beside it.

    Returns:
        0, or 1 where an output differs by more than the tolerance.
    """
    from core_attn.training.export import export

    scorer = Scorer.load(ckpt)
    path = Path(out or Path(ckpt).with_suffix({"onnx": ".onnx", "torch": ".pt2"}[format]))
    code = export(ckpt, format, str(path), tolerance)
    tables = path.with_name(path.stem + "-tables")
    shutil.rmtree(tables, ignore_errors=True)
    scorer.write_tables(tables)
    count = len(scorer.vocabulary.tables)
    print(f"{tables}/: schema {scorer.prepared.hash} and {count} vocabularies")
    return code


def measure(
    *, fields: int = 39, rows: int = 1_000_000, batch: int = 8192, repeats: int = 10
) -> dict[str, str]:
    """Scoring speed of the official AutoInt with random weights, on one thread."""
    layout = Layout.plain(fields, rows)
    model = create("autoint", layout).eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    results = {}
    try:
        for size in (1, batch):
            index = torch.randint(rows, (size, fields))
            value = torch.ones(size, fields)
            times = []
            with torch.inference_mode():
                for _ in range(repeats * (50 if size == 1 else 1) + 3):
                    start = time.perf_counter()
                    model(index, value)
                    times.append(time.perf_counter() - start)
            best = median(times[3:])
            if size == 1:
                results["latency of one row, one thread"] = f"{1e3 * best:.3f} ms"
            else:
                results[f"rows a second, batch {size}, one thread"] = f"{size / best:,.0f}"
    finally:
        torch.set_num_threads(threads)
    return results
