"""Clicks with known interactions between fields."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from ..schema import Field, Schema
from .module import ClickData, with_split
from .prepare import prepare
from .vocabulary import mix64

FIELDS = ("user", "item", "hour", "device", "city", "weather", "category", "brand", "slot", "age",
          "source", "browser")  # fmt: skip
SIZES = (1000, 400, 24, 12, 60, 8, 40, 150, 10, 7, 20, 9)
PLANTED = (("user", "category"), ("item", "city", "age"), ("device", "hour", "brand", "slot"))
BLOCK = 1 << 17


def generate(
    rows: int, seed: int = 0, planted: tuple[tuple[str, ...], ...] = PLANTED
) -> Iterator[pl.DataFrame]:
    """Draws clicks whose log odds are known.

    Every value of a field has a hidden trait, 0 or 1. Each planted set of fields adds to the log
    odds where all its fields' values have the trait; `weather`, `source` and `browser` take part
    in none; `user`, `item` and `hour` also count by themselves.

    Args:
        rows: how many.
        seed: of everything.
        planted: sets of 2 to 4 fields.

    Yields:
        Frames with the columns of `FIELDS`, `click`, and `p`, the true probability.

    Raises:
        ValueError: a planted set is not 2 to 4 known fields.

    Example:
        >>> next(generate(5)).shape
        (5, 14)
    """
    for fields in planted:
        if not 2 <= len(fields) <= 4 or not set(fields) <= set(FIELDS):
            raise ValueError(f"planted must be sets of 2 to 4 of {FIELDS}, got {fields}")
    traits = {}
    for number, (name, size) in enumerate(zip(FIELDS, SIZES, strict=True)):
        order = np.argsort(
            mix64(np.arange(size, dtype=np.uint64) + np.uint64(1000 * number + seed))
        )
        of = max((len(fields) for fields in planted if name in fields), default=2)
        traits[name] = np.zeros(size, bool)
        traits[name][order[: round(size * {2: 0.5, 3: 0.6, 4: 0.7}[of])]] = True
    for number, start in enumerate(range(0, rows, BLOCK)):
        random = np.random.default_rng([seed, number])
        size = min(BLOCK, rows - start)
        values = {
            # The power makes small ids frequent, as in logs.
            name: np.minimum((n * random.random(size) ** 1.5).astype(np.int32), n - 1)
            for name, n in zip(FIELDS, SIZES, strict=True)
        }
        odds = np.full(size, -3.5)
        for name in ("user", "item", "hour"):
            odds += 0.5 * traits[name][values[name]]
        for fields in planted:
            odds += 2.5 * np.all([traits[name][values[name]] for name in fields], axis=0)
        p = 1 / (1 + np.exp(-odds))
        click = (random.random(size) < p).astype(np.int8)
        yield pl.DataFrame(values | {"click": click, "p": p})


def planted_pairs(planted: tuple[tuple[str, ...], ...] = PLANTED) -> set[frozenset[str]]:
    """All pairs of fields that take part in one planted set.

    Example:
        >>> len(planted_pairs())
        10
    """
    return {frozenset((a, b)) for fields in planted for a in fields for b in fields if a != b}


@dataclass(eq=False)
class SyntheticClicks(ClickData):
    """Generated clicks with planted interactions of two, three and four fields.

    Args:
        rows: how many, over all splits.
    """

    schema: ClassVar[Schema] = Schema("click", tuple(Field(name) for name in FIELDS))

    rows: int = 200_000

    def key(self) -> dict[str, Any]:
        """Rows and seed."""
        return {"rows": self.rows, "seed": self.seed, "version": 1}

    def build(self, folder: Path) -> None:
        """Generates twice, for the two passes, instead of keeping the rows."""
        prepare(
            lambda: with_split(generate(self.rows, self.seed), (0.8, 0.1, 0.1), self.seed),
            self.schema,
            folder,
            seed=self.seed,
            negative_rate=self.negative_rate,
        )
