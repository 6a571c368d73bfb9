"""MovieLens day after day: python -m benchmarks.days --path .../ml-1m

The ratings in the order of their timestamps, in equal parts; trained on each part, tested on the
next, warm-started beside trained anew (`attn-recsys days`). Reads ml-1m with its ratings.dat, or
ml-100k as RecBole brings it, in Parquet. A row is a user, an item with its genres and year, the
user's age, gender and occupation, and the items that the user liked before; the label is a rating
above 3 against below 3.
"""

import argparse
import os
from pathlib import Path

import polars as pl

from attn_recsys.data.movielens import read_ml1m
from attn_recsys.days import prequential

DATA = Path(os.environ.get("ATTN_DATA", "../../../shared/data")) / "recsys"
SCHEMA = """label: rating
above: 3
below: 3
group: user
fields:
  user: categorical
  item: categorical
  liked: {kind: sequence, target: item, max_values: 20, keep: last}
  genres: {kind: multi}
  year: categorical
  age: categorical
  gender: categorical
  occupation: categorical
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, default=DATA / "ml-100k")
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--config", default="table-autoint_plus")
    parser.add_argument("--out", type=Path, default=Path("days"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = with_histories(ratings(args.path))
    size = -(-len(rows) // args.days)
    files = []
    for day in range(args.days):
        files.append(str(args.out / f"day{day + 1}.parquet"))
        rows[day * size : (day + 1) * size].write_parquet(files[-1])
    schema = args.out / "movielens.yaml"
    schema.write_text(SCHEMA)
    flags = ("--trainer.max_epochs", str(args.epochs), "--data.batch_size", "256")
    for row in prequential(str(schema), files, args.config, args.out, flags):
        within = row.get("grouped_auc", float("nan"))
        print(
            f"{Path(row['tested on']).stem} {row['model']:<5} {row['rows']:,} rows  "
            f"AUC {row['auc']:.4f}  within users {within:.4f}  log loss {row['logloss']:.4f}"
        )


def ratings(path):
    """All ratings in order of time."""
    if (path / "users.dat").is_file():
        frame = read_ml1m(path).rename({"movie": "item", "genre": "genres", "release": "year"})
        if "timestamp" not in frame.columns:
            raise SystemExit(f"{path} has no timestamps: it needs GroupLens' own ratings.dat")
        return frame.sort("timestamp", maintain_order=True)
    tables = [pl.read_parquet(path / f"{name}.parquet") for name in ("inter", "item", "user")]
    inter, item, user = (t.rename({c: c.split(":")[0] for c in t.columns}) for t in tables)
    frame = inter.join(item, on="item_id").join(user, on="user_id")
    frame = frame.with_columns(pl.col("class").str.replace_all(" ", "|").alias("genres"))
    names = {"user_id": "user", "item_id": "item", "release_year": "year"}
    return frame.rename(names).sort("timestamp", "user", "item")


def with_histories(frame):
    """Adds the items that the row's user rated above 3 before, at most the last 20."""
    liked: dict = {}
    seen = []
    for user, item, rating in frame.select("user", "item", "rating").rows():
        seen.append([str(x) for x in liked.get(user, ())])
        if rating > 3:
            liked[user] = [*liked.get(user, ())[-19:], item]
    columns = ["user", "item", "rating", "genres", "year", "age", "gender", "occupation"]
    lists = pl.Series("liked", seen, dtype=pl.List(pl.String))
    return frame.select(columns).with_columns(lists)


if __name__ == "__main__":
    main()
