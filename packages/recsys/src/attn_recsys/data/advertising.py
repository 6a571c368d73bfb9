"""Criteo, Avazu and KDD Cup 2012 track 2, prepared as by the authors or without leaks."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl

from ..schema import Field, Schema
from .blocks import find_files, read_blocks
from .encode import labels
from .module import ClickData, with_split
from .numbering import Vocabulary, number_by_field, number_by_passing
from .prepare import prepare
from .vocabulary import Counter

INTEGERS = tuple(f"I{i}" for i in range(1, 14))
CATEGORIES = tuple(f"C{i}" for i in range(1, 27))
AVAZU = (
    "id", "hour", "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id",
    "app_domain", "app_category", "device_id", "device_ip", "device_model", "device_type",
    "device_conn_type", *(f"C{i}" for i in range(14, 22)),
)  # fmt: skip
KDD12_COLUMNS = (
    "click", "impression", "display_url", "ad_id", "advertiser_id", "depth", "position", "query_id",
    "keyword_id", "title_id", "description_id", "user_id",
)  # fmt: skip


@dataclass(eq=False)
class LogData(ClickData):
    """A public advertising log.

    Args:
        path: the user's file or files.
        protocol: "official": values are counted over all rows, validation and test included, and
            split into ten stratified parts of which the first is the test and the second the
            validation set, as the authors did; "leak_free": values are counted over the training
            rows only, split at random by row number.
    """

    schema: ClassVar[Schema]
    names: ClassVar[tuple[str, ...] | None] = None  # of the columns, for files without a header
    counts_empty: ClassVar[bool] = False

    path: str
    protocol: Literal["official", "leak_free"] = "leak_free"

    @abstractmethod
    def official_numbering(self) -> Callable[[Schema, dict[str, Counter]], Vocabulary]:
        """How the authors number the values."""

    def read(self) -> Iterator[pl.DataFrame]:
        """One pass over the table."""
        return read_blocks(self.path, self.schema.columns, names=self.names)

    def key(self) -> dict[str, Any]:
        """Files with size and time, protocol, seed."""
        stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns)
                 for p in find_files(self.path)]  # fmt: skip
        return {"files": stats, "protocol": self.protocol, "seed": self.seed}

    def build(self, folder: Path) -> None:
        """Prepares by the protocol."""
        if self.protocol == "leak_free":
            prepare(
                lambda: with_split(self.read(), (0.8, 0.1, 0.1), self.seed),
                self.schema, folder, seed=self.seed, negative_rate=self.negative_rate,
            )  # fmt: skip
            return
        split = official_parts(self._labels())
        prepare(
            lambda: _with_parts(self.read(), split),
            self.schema,
            folder,
            seed=self.seed,
            count_splits=("train", "val", "test"),
            number=self.official_numbering(),
            count_empty=self.counts_empty,
            negative_rate=self.negative_rate,
        )

    def _labels(self) -> np.ndarray:
        """The label of every row; no other column is read."""
        found, start = [], 0
        for frame in read_blocks(self.path, [self.schema.label], names=self.names):
            found.append(labels(frame, self.schema, start))
            start += len(frame)
        return np.concatenate(found)


class Criteo(LogData):
    """Display advertising: train.txt of the Kaggle challenge, 13 numbers and 26 categories.

    Values seen 11 times or more have a row of their own. Numbers above 2 become int(ln(x)^2).
    """

    schema = Schema(
        "label",
        (
            *(Field(name, "numerical", transform="log2") for name in INTEGERS),
            *(Field(name, min_count=11) for name in CATEGORIES),
        ),
    )
    names = ("label", *INTEGERS, *CATEGORIES)
    counts_empty = True

    def official_numbering(self) -> Callable[[Schema, dict[str, Counter]], Vocabulary]:
        """Field after field, each in the order in which its values pass."""
        return number_by_field


class Avazu(LogData):
    """Mobile advertising: train.csv of the Kaggle challenge, 23 categories.

    Values have a row of their own from their 5th occurrence on.
    """

    schema = Schema("click", tuple(Field(name, min_count=5) for name in AVAZU))

    def official_numbering(self) -> Callable[[Schema, dict[str, Counter]], Vocabulary]:
        """In one pass, as the values of any field pass."""
        return number_by_passing


class KDD12(LogData):
    """Search advertising: training.txt of KDD Cup 2012 track 2, with userid_profile.txt beside it.

    Values have a row of their own from their 10th occurrence on; a user 0 is a missing one.
    Every gender and age code of the profiles has a row, the code 0 for unknown too. They are
    numbered in order of appearance there, genders first: that order is assumed, and another one
    would only permute rows. A user without a profile has neither.
    """

    schema = Schema(
        "click",
        (
            *(Field(name, "numerical", transform="log2")
              for name in ("impression", "depth", "position")),
            *(Field(name, min_count=10)
              for name in ("display_url", "ad_id", "advertiser_id", "query_id", "keyword_id",
                           "title_id", "description_id", "user_id")),
            Field("gender"),
            Field("age"),
        ),
        above=0,
        below=0.5,
    )  # fmt: skip
    names = KDD12_COLUMNS

    def read(self) -> Iterator[pl.DataFrame]:
        """One pass over the log, joined with the users' profiles."""
        profiles = self._profiles()
        for frame in read_blocks(self.path, KDD12_COLUMNS, names=KDD12_COLUMNS):
            joined = frame.join(profiles, on="user_id", how="left", maintain_order="left")
            yield joined.with_columns(
                pl.when(pl.col("user_id") != "0").then(pl.col("user_id")).alias("user_id")
            )

    def official_numbering(self) -> Callable[[Schema, dict[str, Counter]], Vocabulary]:
        """In one pass; genders and ages first, in the order of the profiles."""
        profiles = self._profiles()
        fixed = {
            name: profiles[name].drop_nulls().unique(maintain_order=True).to_list()
            for name in ("gender", "age")
        }

        def number(schema: Schema, counters: dict[str, Counter]) -> Vocabulary:
            counted = {name: c for name, c in counters.items() if name not in fixed}
            return number_by_passing(schema, counted, fixed)

        return number

    def _profiles(self) -> pl.DataFrame:
        path = find_files(self.path)[0].parent / "userid_profile.txt"
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; it belongs beside the training file")
        names = ("user_id", "gender", "age")
        return pl.concat(list(read_blocks(path, names, names=names)))


def official_parts(label: np.ndarray) -> np.ndarray:
    """The authors' split: of ten stratified parts the first is the test, the second validation.

    Example:
        >>> np.bincount(official_parts(np.arange(1000) % 2)).tolist()
        [800, 100, 100]
    """
    from sklearn.model_selection import StratifiedKFold  # half a second to import

    folds = StratifiedKFold(n_splits=10, shuffle=True, random_state=2018)
    split = np.zeros(len(label), np.uint8)
    for part, (_, held_out) in enumerate(folds.split(np.zeros(len(label)), label)):
        if part < 2:
            split[held_out] = 2 - part
    return split


def _with_parts(
    frames: Iterator[pl.DataFrame], split: np.ndarray
) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
    start = 0
    for frame in frames:
        yield frame, split[start : start + len(frame)]
        start += len(frame)
