"""MovieLens-1M, prepared as by the authors or without leaks."""

import dataclasses
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from ..layout import Layout
from ..schema import Field, PreparedSchema, Schema
from .module import ClickData
from .numbering import Vocabulary
from .prepare import prepare
from .vocabulary import split_of_rows

SCHEMA = Schema(
    label="rating",
    above=3,
    below=3,
    fields=(
        Field("gender"),
        Field("age"),
        Field("occupation"),
        Field("zip"),
        Field("release"),
        Field("timestamp", "numerical", transform="minmax"),
        Field("genre", "multi"),
    ),
)


def read_ml1m(folder: str | Path) -> pl.DataFrame:
    """Joins ratings, users and movies, in the order of the ratings.

    Args:
        folder: the user's copy of ml-1m: users.dat, movies.dat and ratings.dat, or ratings.parquet
            with the columns user, movie, rating and perhaps timestamp.

    Returns:
        A frame with the columns of `SCHEMA`; without `timestamp` if the ratings have none.

    Raises:
        FileNotFoundError: a file is missing.
    """
    folder = Path(folder).expanduser()
    for name in ("users.dat", "movies.dat"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} does not exist; {folder} must be ml-1m")
    users = _read_dat(folder / "users.dat", ["user", "gender", "age", "occupation", "zip"])
    movies = _read_dat(folder / "movies.dat", ["movie", "title", "genre"])
    movies = movies.with_columns(
        pl.col("title").str.extract(r"\((\d{4})\)\s*$").alias("release")
    ).drop("title")
    if (folder / "ratings.dat").is_file():
        ratings = _read_dat(folder / "ratings.dat", ["user", "movie", "rating", "timestamp"])
        ratings = ratings.with_columns(pl.col("rating", "timestamp").cast(pl.Int64))
    elif (folder / "ratings.parquet").is_file():
        ratings = pl.read_parquet(folder / "ratings.parquet")
        ratings = ratings.with_columns(pl.col("user", "movie").cast(pl.String))
    else:
        raise FileNotFoundError(f"{folder} has neither ratings.dat nor ratings.parquet")
    joined = ratings.join(users, on="user", maintain_order="left")
    return joined.join(movies, on="movie", maintain_order="left")


def official_split(rows: int) -> np.ndarray:
    """The authors' split of the kept rows: 0 train, 1 validation, 2 test.

    Source: featureRec/movielens, the shuffle of Python's random with seed 2019.

    Example:
        >>> np.bincount(official_split(739012)).tolist()
        [591209, 73901, 73902]
    """
    order = list(range(rows))
    random.Random(2019).shuffle(order)
    split = np.zeros(rows, np.uint8)
    split[order[int(0.8 * rows) : int(0.9 * rows)]] = 1
    split[order[int(0.9 * rows) :]] = 2
    return split


def prepare_ml1m(
    source: str | Path,
    folder: str | Path,
    *,
    protocol: Literal["official", "leak_free"] = "leak_free",
    seed: int = 0,
    negative_rate: float = 1.0,
) -> PreparedSchema:
    """Prepares MovieLens-1M.

    Args:
        source: the user's copy of ml-1m.
        folder: where to write.
        protocol: "official": the authors' table rows and split; the range of the timestamps is
            taken over all rows. "leak_free": vocabularies and ranges of the training rows only,
            and a random split of its own.
        seed: of the split of "leak_free", and of the down-sampling.
        negative_rate: share of the training rows with label 0 that is kept.

    Without timestamps in the ratings the field is left out, and 6 of the 7 fields remain.
    """
    frame = read_ml1m(source)
    fields = tuple(field for field in SCHEMA.fields if field.name in frame.columns)
    schema = dataclasses.replace(SCHEMA, fields=fields)
    if protocol == "leak_free":
        split = split_of_rows(np.arange(len(frame)), (0.8, 0.1, 0.1), seed)
        return prepare(
            lambda: [(frame, split)], schema, folder, seed=seed, negative_rate=negative_rate
        )
    kept = (frame["rating"] != 3).to_numpy()
    split = np.zeros(len(frame), np.uint8)
    split[kept] = official_split(int(kept.sum()))
    zips = _read_dat(Path(source) / "users.dat", ["user", "gender", "age", "job", "zip"])["zip"]
    genres = _read_dat(Path(source) / "movies.dat", ["movie", "title", "genre"])["genre"]
    vocabulary = official_numbering(
        zips.unique(maintain_order=True).to_list(),
        genres.str.split("|").explode().unique(maintain_order=True).to_list(),
        schema,
    )
    return prepare(
        lambda: [(frame, split)],
        schema,
        folder,
        count_splits=("train", "val", "test"),
        number=lambda *_: vocabulary,
        seed=seed,
        negative_rate=negative_rate,
    )


def official_numbering(zips: list[str], genres: list[str], schema: Schema) -> Vocabulary:
    """The authors' table rows: genders, ages, occupations, zips, genres, years, timestamp.

    Args:
        zips: in order of first appearance in users.dat.
        genres: in order of first appearance in movies.dat.
        schema: of the fields.
    """
    years = {str(year): 3493 + max(0, min(year // 10 - 192, 5)) for year in range(1919, 1970)}
    years |= {str(year): 3498 + year - 1970 for year in range(1970, 2001)}
    ages = ["1", "18", "25", "35", "45", "50", "56"]
    rows = {
        "gender": {"M": 1, "F": 2},
        "age": {age: 3 + i for i, age in enumerate(ages)},
        "occupation": {str(i): 10 + i for i in range(21)},
        "zip": {code: 31 + i for i, code in enumerate(zips)},
        "genre": {genre: 3470 + i for i, genre in enumerate(genres)},
        "release": years,
    }
    places = {
        "gender": (1, 2), "age": (3, 7), "occupation": (10, 21), "zip": (31, 3439),
        "release": (3493, 36), "timestamp": (3529, 1), "genre": (3470, 23),
    }  # fmt: skip
    tables = {
        name: pl.DataFrame(
            {"value": list(ids), "id": list(ids.values()), "passed": [-1] * len(ids)},
            schema={"value": pl.String, "id": pl.Int32, "passed": pl.Int64},
        )
        for name, ids in rows.items()
    }
    layout = Layout(
        names=tuple(schema.names),
        widths=tuple(field.width for field in schema.fields),
        firsts=tuple(places[name][0] for name in schema.names),
        sizes=tuple(places[name][1] for name in schema.names),
        rows=3600,
        numerical=tuple(field.name for field in schema.fields if field.is_number),
    )
    return Vocabulary(tables, {}, {}, layout, features=3529)


def _read_dat(path: Path, names: list[str]) -> pl.DataFrame:
    lines = path.read_text(encoding="iso-8859-1").splitlines()
    cells = [line.split("::") for line in lines if line]
    return pl.DataFrame(cells, schema=dict.fromkeys(names, pl.String), orient="row")


@dataclass(eq=False)
class MovieLens1M(ClickData):
    """MovieLens-1M, ratings above 3 against below 3; read from the user's own copy.

    Args:
        path: the folder ml-1m.
        protocol: "official" or "leak_free", as in `prepare_ml1m`.
    """

    path: str
    protocol: Literal["official", "leak_free"] = "leak_free"
    buffer: int = field(default=16, kw_only=True)

    def key(self) -> dict[str, Any]:
        """Files with size and time, protocol, seed."""
        files = sorted(Path(self.path).expanduser().glob("*"))
        stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        return {"files": stats, "protocol": self.protocol, "seed": self.seed}

    def build(self, folder: Path) -> None:
        """Prepares by the protocol."""
        prepare_ml1m(
            self.path,
            folder,
            protocol=self.protocol,
            seed=self.seed,
            negative_rate=self.negative_rate,
        )
