"""Probabilities of rows as they come, from a checkpoint and nothing else."""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core_attn.training.files import read_checkpoint

from . import few_rows
from .calibration import Probability, calibrator_from
from .data.batches import Batch, to_batch
from .data.blocks import as_frame
from .data.encode import encoded
from .data.numbering import Vocabulary
from .data.numbers import as_numbers
from .data.prepare import load_vocabulary, vocabulary_file
from .models import AutoIntConfig, BaselineConfig
from .schema import PreparedSchema

INSIDE = 64 * 2**20  # bytes of vocabularies that travel inside a checkpoint
CONFIGS = {config.__name__: config for config in (AutoIntConfig, BaselineConfig)}


def packed(folder: Path, prepared: PreparedSchema) -> dict[str, Tensor] | None:
    """The vocabularies of a prepared folder, to be kept in a checkpoint; None if they are large."""
    files = {name: vocabulary_file(folder, name) for name in prepared.schema.names}
    files = {name: path for name, path in files.items() if path.is_file()}
    if sum(path.stat().st_size for path in files.values()) > INSIDE:
        return None
    return {
        name: torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        for name, path in files.items()
    }


def described(model: nn.Module, probability: Probability) -> dict[str, Any]:
    """What a model is built again from, as plain data: the class and fields of its configuration.

    Example:
        >>> from attn_recsys.layout import Layout
        >>> model = BaselineConfig("lr").build(Layout.plain(2, rows=5))
        >>> described(model, Probability())["class"]
        'BaselineConfig'
    """
    config: Any = model.config
    return {
        "class": type(config).__name__,
        "fields": dataclasses.asdict(config),
        "of_logits": probability.of_logits,
    }


def tables_beside(folder: Path, prepared: PreparedSchema) -> Path:
    """Where vocabularies too large for a checkpoint lie, in the folder of the run."""
    return folder / f"tables-{prepared.hash}"


class Scorer:
    """A trained model with its schema, vocabularies, transforms and calibration.

    Several threads may score with it at once.

    Args:
        model: from ids and values to outputs.
        probability: from these to probabilities.
        prepared: what the columns mean.
        vocabulary: the table rows of their values.
    """

    def __init__(
        self,
        model: nn.Module,
        probability: Probability,
        prepared: PreparedSchema,
        vocabulary: Vocabulary,
    ):
        self.model, self.probability = model.eval(), probability
        self.prepared, self.vocabulary = prepared, vocabulary

    @classmethod
    def load(cls, path: str | Path) -> "Scorer":
        """Opens a checkpoint; no other file is needed but, if they are large, its tables beside it.

        Raises:
            FileNotFoundError: it is not there, or its tables are not.
            ValueError: it is not a checkpoint of this package.
        """
        content = read_checkpoint(path)
        if "network" not in content:
            raise ValueError(f"{path} holds no click model of this package")
        prepared = PreparedSchema.from_dict(json.loads(content["prepared"]))
        inside = content.get("vocabulary")
        if inside is None:
            folder = tables_beside(Path(path).parent, prepared)
            if not folder.is_dir():
                raise FileNotFoundError(f"{path} needs its vocabularies, {folder}, beside it")
            vocabulary = load_vocabulary(folder, prepared)
        else:
            tables = {
                name: pl.read_parquet(io.BytesIO(data.numpy().tobytes()))
                for name, data in inside.items()
            }
            vocabulary = _vocabulary(tables, prepared)
        network = json.loads(content["network"])
        calibration = json.loads(content.get("calibration", "null"))
        prefix = "model."
        state = {
            key.removeprefix(prefix): x
            for key, x in content["state_dict"].items()
            if key.startswith(prefix)
        }
        return cls._of(network, state, calibration, prepared, vocabulary)

    @classmethod
    def _of(
        cls,
        network: Mapping[str, Any],
        state: Mapping[str, Tensor],
        calibration: dict[str, Any] | None,
        prepared: PreparedSchema,
        vocabulary: Vocabulary,
    ) -> "Scorer":
        """One of what a file holds."""
        config = CONFIGS[network["class"]](**network["fields"])
        model = config.build(prepared.layout)
        model.load_state_dict(state)
        probability = Probability(prepared.negative_rate, of_logits=network["of_logits"])
        if calibration is not None:
            probability.calibrator = calibrator_from(calibration)
        return cls(model, probability, prepared, vocabulary)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Scorer":
        """Opens what `save_pretrained` wrote.

        Raises:
            FileNotFoundError: a file is missing.
        """
        folder = Path(folder)
        content = json.loads((folder / "scorer.json").read_text("utf-8"))
        prepared = PreparedSchema.from_dict(content["prepared"])
        state = load_file(folder / "model.safetensors")
        vocabulary = load_vocabulary(folder, prepared)
        return cls._of(content["network"], state, content["calibration"], prepared, vocabulary)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes weights, configuration, schema, calibration and vocabularies into a folder."""
        folder = Path(folder)
        self.write_tables(folder)
        calibrator = self.probability.calibrator
        content = {
            "network": described(self.model, self.probability),
            "prepared": self.prepared.to_dict(),
            "calibration": None if calibrator is None else calibrator.to_dict(),
        }
        (folder / "scorer.json").write_text(json.dumps(content, indent=1), "utf-8")
        state = {key: x.contiguous() for key, x in self.model.state_dict().items()}
        save_file(state, folder / "model.safetensors")

    def write_tables(self, folder: Path) -> None:
        """Writes `schema.json` and a file for every vocabulary, as the preparation does."""
        (folder / "vocabulary").mkdir(parents=True, exist_ok=True)
        (folder / "schema.json").write_text(json.dumps(self.prepared.to_dict(), indent=1), "utf-8")
        for name, table in self.vocabulary.tables.items():
            table.write_parquet(vocabulary_file(folder, name), compression="lz4")

    def score(
        self, rows: pl.DataFrame | pa.Table | Sequence[Mapping[str, Any]], batch_size: int = 8192
    ) -> np.ndarray:
        """The probability of label 1 of each row.

        Args:
            rows: a table, or rows as mappings, with the columns of the schema; others are ignored.
            batch_size: rows scored at once.

        Raises:
            TypeError: it is neither a table nor rows.
            ValueError: a column is missing, a cell does not fit its field, or no batch_size.
        """
        if isinstance(rows, pl.DataFrame):
            frame = rows
        elif isinstance(rows, pa.Table | pa.RecordBatch):
            frame = as_frame(rows)
        elif hasattr(rows, "__arrow_c_stream__"):  # pandas and others
            frame = pl.DataFrame(rows)
        elif not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
            raise TypeError(
                f"rows must be a table or a list of mappings, got {type(rows).__name__}"
            )
        elif not rows:
            return np.empty(0, np.float32)
        elif len(rows) <= few_rows.ROWS and self.few and (few := self.few.batch(rows)):
            return self.probabilities(few, batch_size).numpy()
        else:
            columns = {name: [row.get(name) for row in rows] for name in self.prepared.schema.names}
            absent = [name for name in columns if not any(name in row for row in rows)]
            if absent:
                raise ValueError(f"column {', '.join(absent)} missing; fields may be empty: None")
            if mixed := [name for name, cells in columns.items() if _is_mixed(cells)]:
                return self._score_apart(rows, mixed, batch_size)
            frame = pl.DataFrame(columns, strict=False)
        missing = [name for name in self.prepared.schema.names if name not in frame.columns]
        if missing:
            there = ", ".join(frame.columns)
            raise ValueError(f"column {', '.join(missing)} missing; there are {there}")
        return self.probabilities(self.batch(self.coded(frame)), batch_size).numpy()

    def _score_apart(
        self, rows: Sequence[Mapping[str, Any]], mixed: Sequence[str], batch_size: int
    ) -> np.ndarray:
        """Scores rows whose cells are of kinds that one column cannot hold, each kind apart."""
        names = self.prepared.schema.names
        kinds: dict[tuple[type, ...], list[int]] = {}
        for at, row in enumerate(rows):
            kinds.setdefault(tuple(type(row.get(name)) for name in mixed), []).append(at)
        p = np.empty(len(rows), np.float32)
        for places in kinds.values():
            alike = [{name: rows[at].get(name) for name in names} for at in places]
            p[places] = self.score(alike, batch_size)
        return p

    @cached_property
    def few(self) -> few_rows.FewRows | None:
        """Encodes a few rows without tables; None where the vocabularies are too large for it."""
        if sum(map(len, self.vocabulary.tables.values())) > few_rows.VALUES:
            return None
        return few_rows.FewRows(self.prepared, self.vocabulary)

    def coded(self, frame: pl.DataFrame, start: int = 0) -> pl.DataFrame:
        """Table rows and numbers of the cells; `start` is the first row's number, for messages."""
        rows = pl.int_range(start, start + len(frame), eager=True)
        p = self.prepared
        return encoded(frame, p.schema, self.vocabulary, p.ranges, p.seed, rows, p.kinds)

    def batch(self, coded: pl.DataFrame) -> Batch:
        """Ids and values of encoded rows."""
        return to_batch(coded.to_arrow(), self.prepared)

    def logits(self, batch: Batch, batch_size: int = 8192) -> Tensor:
        """Log odds among all rows, before calibration."""
        return self._each(batch, batch_size, self.probability.logits)

    def probabilities(self, batch: Batch, batch_size: int = 8192) -> Tensor:
        """Probabilities of the rows of a batch.

        Raises:
            ValueError: the model gives something that is no number.
        """
        p = self._each(batch, batch_size, self.probability)
        if p.isnan().any():
            raise ValueError("the model gives NaN; its weights are not finite")
        return p

    def _each(self, batch: Batch, size: int, last: Any) -> Tensor:
        if size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {size}")
        with torch.inference_mode():
            parts = [
                last(self.model(batch["index"][i : i + size], batch["value"][i : i + size])).float()
                for i in range(0, len(batch["label"]), size)
            ]
        return torch.cat(parts) if parts else torch.empty(0)


def _is_mixed(cells: Sequence[Any]) -> bool:
    kinds = set(map(type, cells)) - {type(None)}
    return len(kinds) > 1 and not kinds <= {str, int, float, bool}


def _vocabulary(tables: dict[str, pl.DataFrame], prepared: PreparedSchema) -> Vocabulary:
    return Vocabulary(tables, prepared.rare, prepared.missing, prepared.layout, prepared.features)


class Met:
    """What scored rows hold that the training rows did not: unseen values, numbers out of range.

    Args:
        scorer: which knows the training rows.
    """

    def __init__(self, scorer: Scorer):
        self.prepared = scorer.prepared
        self.cells = dict.fromkeys(self.prepared.rare, 0)
        self.unseen = dict.fromkeys(self.prepared.rare, 0)
        self.clipped = {
            name: 0
            for name, span in self.prepared.ranges.items()
            if self.prepared.schema.field(name).transform in ("standard", "none", "minmax") and span
        }

    def update(self, frame: pl.DataFrame, coded: pl.DataFrame) -> None:
        """Counts the cells of a block."""
        for name, row in self.prepared.rare.items():
            ids = coded[name]
            ids = ids.explode() if isinstance(ids.dtype, pl.List) else ids
            self.cells[name] += len(ids) - ids.null_count()
            self.unseen[name] += int((ids == row).sum() or 0)
        rows = pl.int_range(len(frame), eager=True)
        for name in self.clipped:
            field = self.prepared.schema.field(name)
            numbers = as_numbers(frame[name], field, rows, schema=self.prepared.schema)
            low, high = self.prepared.ranges[name][-2:]
            self.clipped[name] += int(((numbers < low) | (numbers > high)).sum() or 0)

    @property
    def strangers(self) -> list[str]:
        """Fields none of whose values, ten or more, was seen in training, as some held-out were."""
        usual = self.prepared.unseen
        return [
            name
            for name, n in self.cells.items()
            if n >= 10 and self.unseen[name] == n and usual.get(name, 0.0) < 1
        ]

    def notes(self) -> list[str]:
        """A line for each field that is met otherwise than the validation rows were."""
        said = []
        for name, cells in self.cells.items():
            share, usual = self.unseen[name] / max(cells, 1), self.prepared.unseen.get(name, 0.0)
            if share > 2 * usual + 0.02:
                said.append(
                    f"{name}: {share:.1%} of the values are rare or unseen; of those of the "
                    f"held-out rows {usual:.1%} were"
                )
        for name, count in self.clipped.items():
            if count:
                low, high = self.prepared.ranges[name][-2:]
                said.append(
                    f"{name}: {count:,} numbers lie beyond those of the training rows, {low:g} to "
                    f"{high:g}, and count as the nearest of them"
                )
        return said
