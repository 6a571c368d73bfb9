"""Scoring of files, export with the tables that make ids of cells, and latency."""

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from .calibration import Isotonic, Platt, fit_calibrator
from .data.batches import Batch, to_batch
from .data.blocks import read_blocks
from .data.encode import encoded
from .data.prepare import load_vocabulary
from .layout import Layout
from .metrics import expected_calibration_error, log_loss
from .models import create

if TYPE_CHECKING:
    from .data import ClickData
    from .tasks import ClickTask


def predict_files(
    ckpt: str, files: str | Sequence[str], output: str | Path, *, batch_size: int = 8192
) -> tuple[int, float]:
    """Streams rows through a checkpoint; memory does not grow with the files.

    Args:
        ckpt: the checkpoint; its data module's prepared folder must be there.
        files: Parquet, CSV or TSV files, or patterns, with the schema's columns; a label is not
            needed.
        output: a Parquet file with the columns `row` and `probability`; it appears when complete.
        batch_size: rows scored at once.

    Returns:
        Rows and seconds.

    Raises:
        ValueError: a cell that does not fit its field, or data prepared for another schema.
    """
    task, data, _ = load(ckpt, "predict")
    prepared = data.prepared
    vocabulary = load_vocabulary(data.prepared_folder, prepared)
    output = Path(output)
    part = output.with_name(output.name + ".part")
    names = pa.schema([("row", pa.int64()), ("probability", pa.float32())])
    start, began = 0, time.perf_counter()
    try:
        with pq.ParquetWriter(part, names) as writer, torch.inference_mode():
            for frame in read_blocks(files, prepared.schema.names):
                rows = pl.int_range(start, start + len(frame), eager=True)
                coded = encoded(
                    frame, prepared.schema, vocabulary, prepared.ranges, prepared.seed, rows
                )
                whole = to_batch(coded.to_arrow(), prepared)
                p = torch.cat([task.predict_step(batch) for batch in _cut(whole, batch_size)])
                writer.write_table(
                    pa.table([rows.to_arrow(), pa.array(p.float().numpy())], schema=names)
                )
                start += len(frame)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return start, time.perf_counter() - began


def calibrate(
    ckpt: str, method: Literal["platt", "isotonic", "none"], out: str | Path | None = None
) -> list[dict[str, Any]]:
    """Fits a calibration on the validation rows and keeps it in the checkpoint.

    Args:
        ckpt: the checkpoint.
        method: as in `fit_calibrator`; "none" takes a calibration away.
        out: the checkpoint to write; `ckpt` itself if None.

    Returns:
        Log loss and calibration of validation rows, on which it was fitted, and test rows, before
        and after.

    Raises:
        ValueError: there are no validation rows, or all have the same label.
    """
    from core_attn.training.checkpoint import AtomicCheckpointIO

    task, data, checkpoint = load(ckpt, "test")
    checkpoint.pop("calibration", None)
    rows = []
    if method != "none":
        labels, logits = _label_and_logits(task, data.val_dataloader())
        calibrator = fit_calibrator(method, logits.numpy(), labels)
        checkpoint["calibration"] = json.dumps(calibrator.to_dict())
        rows += _before_and_after("validation", labels, logits, calibrator)
        if data.prepared.rows["test"]:
            labels, logits = _label_and_logits(task, data.test_dataloader())
            rows += _before_and_after("test", labels, logits, calibrator)
    AtomicCheckpointIO().save_checkpoint(checkpoint, out or ckpt)
    return rows


def _label_and_logits(task: "ClickTask", batches: Iterable[Batch]) -> tuple[np.ndarray, Tensor]:
    labels, logits = [], []
    with torch.inference_mode():
        for batch in batches:
            labels.append(batch["label"].numpy())
            logits.append(task.logits(batch))
    return np.concatenate(labels), torch.cat(logits)


def _before_and_after(
    part: str, labels: np.ndarray, logits: Tensor, calibrator: Platt | Isotonic
) -> list[dict[str, Any]]:
    found = {"as trained": logits.sigmoid(), calibrator.method: calibrator(logits)}
    return [
        {
            "rows": part,
            "probabilities": name,
            "log loss": log_loss(labels, p.double().numpy()),
            "calibration error": expected_calibration_error(labels, p.double().numpy()),
        }
        for name, p in found.items()
    ]


def load(
    ckpt: str, stage: Literal["validate", "test", "predict"]
) -> "tuple[ClickTask, ClickData, dict[str, Any]]":
    """A trained click task, its data module set up for a stage, and the checkpoint's content.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a checkpoint of this package, or its data were prepared anew.
    """
    from core_attn.training import opened

    from .data import ClickData
    from .tasks import ClickTask

    _, task, data, content = opened(ckpt, stage)
    if not isinstance(task, ClickTask) or not isinstance(data, ClickData):
        raise ValueError(f"{ckpt} holds a {type(task).__name__}, not a click task")
    data.prepared.check_same(task.schema_hash, "the checkpoint")
    return task, data, content


def _cut(batch: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, len(batch["label"]), size):
        yield {key: x[start : start + size] for key, x in batch.items()}  # type: ignore[misc]


def export_with_tables(
    ckpt: str, format: Literal["onnx", "torch"], out: str | None, tolerance: float
) -> int:
    """Exports the network and copies `schema.json` and the vocabularies beside it.

    Returns:
        0, or 1 where an output differs by more than the tolerance.
    """
    from core_attn.training.export import export

    _, data, _ = load(ckpt, "predict")
    path = Path(out or Path(ckpt).with_suffix({"onnx": ".onnx", "torch": ".pt2"}[format]))
    code = export(ckpt, format, str(path), tolerance)
    tables = path.with_name(path.stem + "-tables")
    shutil.rmtree(tables, ignore_errors=True)
    tables.mkdir(parents=True)
    shutil.copy(data.prepared_folder / "schema.json", tables)
    shutil.copytree(data.prepared_folder / "vocabulary", tables / "vocabulary")
    print(
        f"{tables}/: schema {data.prepared.hash} and {len(list(tables.glob('*/*')))} vocabularies"
    )
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
