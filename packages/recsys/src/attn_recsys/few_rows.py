"""A few rows at once, without making tables of them: what tables cost counts where a row is all."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from .data.batches import Batch
from .data.numbering import Vocabulary
from .data.numbers import LARGEST
from .data.vocabulary import bucket_of
from .schema import Field, PreparedSchema

ROWS = 16
VALUES = 4_000_000  # of all vocabularies, whose dictionaries take some 100 bytes each

Slot = tuple[int, float]
Encode = Callable[[Any], list[Slot] | None]


class FewRows:
    """Ids and values of rows of plain cells, the same as the way over tables gives.

    Args:
        prepared: what the columns mean.
        vocabulary: the table rows of their values.
    """

    def __init__(self, prepared: PreparedSchema, vocabulary: Vocabulary):
        known = {
            name: dict(zip(table["value"], table["id"], strict=True))
            for name, table in vocabulary.tables.items()
        }
        layout = prepared.layout
        self.encoders: dict[str, Encode] = {}
        for field, first in zip(prepared.schema.fields, layout.firsts, strict=True):
            absent = (first, 0.0)
            if field.name in prepared.missing:
                absent = (prepared.missing[field.name], 1.0)
            if field.kind == "numerical":
                self.encoders[field.name] = _number(field, first, absent, prepared)
                continue
            ids = known.get(field.vocabulary)
            row_of = (
                _hashed(field, prepared)
                if ids is None
                else partial(_numbered, ids, prepared.rare[field.vocabulary])
            )
            one = _category(row_of, absent, prepared.kinds.get(field.vocabulary, "text"))
            self.encoders[field.name] = _list(field, one) if field.is_list else one

    def batch(self, rows: Sequence[Mapping[str, Any]]) -> Batch | None:
        """The batch of some rows; None where a cell or a field is not a plain one."""
        lines = []
        for row in rows:
            line: list[Slot] = []
            for name, encode in self.encoders.items():
                slots = encode(row[name]) if name in row else None
                if slots is None:
                    return None
                line += slots
            lines.append(line)
        both = np.array(lines, np.float64)  # holds ids below 2^53 exactly
        return {
            "index": torch.from_numpy(both[..., 0].astype(np.int64)),
            "value": torch.from_numpy(both[..., 1].astype(np.float32)),
            "label": torch.full((len(lines),), -1.0),
        }


def _numbered(ids: Mapping[str, int], rare: int, text: str) -> int:
    return ids.get(text, rare)


def _hashed(field: Field, prepared: PreparedSchema) -> Callable[[str], int]:
    at = prepared.layout.names.index(field.vocabulary)
    buckets = prepared.layout.sizes[at] - (field.vocabulary in prepared.missing)
    first, seed = prepared.layout.firsts[at], prepared.seed
    return lambda text: first + bucket_of(text, buckets, seed)


def _category(row_of: Callable[[str], int], absent: Slot, kind: str) -> Encode:
    def encode(cell: Any) -> list[Slot] | None:
        if cell is None:
            return [absent]
        if type(cell) is str:
            text = cell.strip()
            if not text:
                return [absent]
            if kind != "text" and not (kind == "integer" and text.isdecimal()):
                return None
        elif type(cell) is int and kind in ("text", "integer"):
            text = str(cell)
        elif type(cell) is float and kind == "integer" and cell % 1 == 0 and abs(cell) < 2**53:
            text = str(int(cell))
        else:
            return None
        return [(row_of(text), 1.0)]

    return encode


def _list(field: Field, one: Encode) -> Encode:
    def encode(cell: Any) -> list[Slot] | None:
        if type(cell) is str:
            cell = cell.strip().split(field.separator) if field.separator else None
        if type(cell) is not list and cell is not None:
            return None
        slots: list[Slot] = []
        for part in cell or []:
            found = None if part is None else one(part)
            if found is None and part is not None:
                return None
            slots += [slot for slot in found or [] if slot[1]]
        last = field.keep == "last"
        slots = slots[-field.max_values :] if last else slots[: field.max_values]
        return slots + [(0, 0.0)] * (field.max_values - len(slots))

    return encode


def _number(field: Field, first: int, absent: Slot, prepared: PreparedSchema) -> Encode:
    span = prepared.ranges.get(field.name)

    def transformed(x: float) -> Slot:
        if field.transform == "log2":
            return first, float(math.trunc(math.log(x) ** 2)) if x > 2 else x
        if field.transform == "quantiles":
            return first + bisect_right(span or [], x), 1.0
        if span is None:
            return first, x
        low, high = span[-2:]
        x = min(max(x, low), high)
        if field.transform == "standard":
            return first, (x - span[0]) / max(span[1], 1e-12)
        if field.transform == "minmax":
            return first, (x - low) / max(high - low, 1e-12)
        return first, x

    def encode(cell: Any) -> list[Slot] | None:
        if cell is None:
            return [absent]
        if type(cell) not in (int, float) or not -LARGEST <= cell <= LARGEST:
            return None
        return [transformed(float(cell))]

    return encode
