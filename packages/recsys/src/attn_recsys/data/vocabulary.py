"""Which values of a field get a row of their own: counted in one pass with bounded memory."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl


class Counter:
    """Counts the values of one field, and notes the row in which each reached the threshold.

    Args:
        threshold: how often a value must be seen.

    Example:
        >>> counter = Counter(threshold=2)
        >>> counter.update(pl.Series(["a", "b", "a"]), pl.Series([0, 1, 2]))
        >>> counter.update(pl.Series(["b"]), pl.Series([3]))
        >>> counter.passed()["value"].to_list()
        ['a', 'b']
    """

    def __init__(self, threshold: int):
        self.threshold = threshold
        self.seen = pl.DataFrame(
            schema={"value": pl.String, "count": pl.UInt32, "passed": pl.Int64}
        )

    def update(self, values: pl.Series, rows: pl.Series) -> None:
        """Takes values (strings, nulls are skipped) and the numbers of their rows into account."""
        block = pl.DataFrame({"value": values, "row": rows.cast(pl.Int64)}).drop_nulls("value")
        found = block.group_by("value").agg(
            pl.len().alias("new"), pl.col("row").head(self.threshold)
        )
        merged = self.seen.join(found, on="value", how="full", coalesce=True)
        before = pl.col("count").fill_null(0)
        after = before + pl.col("new").fill_null(0)
        position = self.threshold - 1 - before.cast(pl.Int64)
        reached = (
            pl.when(pl.col("passed").is_not_null())
            .then(pl.col("passed"))
            .when(after >= self.threshold)
            .then(pl.col("row").list.get(position, null_on_oob=True))
        )
        self.seen = merged.select(
            "value", after.cast(pl.UInt32).alias("count"), reached.alias("passed")
        )

    def rename(self, plain: Callable[[pl.Series], pl.Series]) -> None:
        """Brings the values to a plain form in which different spellings become one."""
        if (found := plain(self.seen["value"])).equals(self.seen["value"]):
            return
        renamed = self.seen.with_columns(found.alias("value"))
        self.seen = renamed.group_by("value").agg(pl.col("count").sum(), pl.col("passed").min())
        together = pl.col("passed").is_null() & (pl.col("count") >= self.threshold)
        last = pl.when(together).then(2**62).otherwise("passed")  # where is not known
        self.seen = self.seen.with_columns(last.cast(pl.Int64).alias("passed"))

    def passed(self) -> pl.DataFrame:
        """The values that reached the threshold, in the order in which they did."""
        return self.seen.drop_nulls("passed").sort("passed", "value")


def stable_hash(values: pl.Series, buckets: int, seed: int) -> pl.Series:
    """A bucket in [0, buckets) for each string, the same on every machine and in every version.

    64-bit FNV-1a over the UTF-8 bytes, with a final mix; the seed enters the start value.

    Source: Fowler, Noll, Vo, IETF draft-eastlake-fnv; Steele et al., 2014, SplitMix (the mix).

    Example:
        >>> stable_hash(pl.Series(["68fd1e64", "", "ü"]), 1000, seed=0).to_list()
        [657, 203, 258]
    """
    unique = values.unique()
    text = unique.fill_null("").cast(pl.Binary)
    lengths = text.bin.size().to_numpy()
    flat = np.frombuffer(b"".join(text.to_list()), dtype=np.uint8)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    with np.errstate(over="ignore"):
        code = np.full(len(lengths), 0xCBF29CE484222325, np.uint64) ^ mix64(np.uint64(seed))
        for position in range(int(lengths.max(initial=0))):
            live = lengths > position
            code[live] = (code[live] ^ flat[starts[live] + position]) * np.uint64(0x100000001B3)
        bucket = (mix64(code) % np.uint64(buckets)).astype(np.int32)
    table = pl.DataFrame({"value": unique, "bucket": bucket})
    joined = values.to_frame("value").join(
        table, on="value", how="left", nulls_equal=True, maintain_order="left"
    )
    return joined["bucket"].set(values.is_null(), None)


def bucket_of(text: str, buckets: int, seed: int) -> int:
    """`stable_hash` of one string, without tables.

    Example:
        >>> bucket_of("68fd1e64", 1000, seed=0)
        657
    """
    code = 0xCBF29CE484222325 ^ int(mix64(np.uint64(seed)))
    for byte in text.encode():
        code = (code ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return int(mix64(np.uint64(code))) % buckets


def mix64(x: np.ndarray | np.uint64) -> np.ndarray:
    """Scrambles 64-bit integers so that near ones fall far apart.

    Source: Steele et al., 2014, "Fast splittable pseudorandom number generators", SplitMix64.

    Example:
        >>> int(mix64(np.uint64(1)))
        6238072747940578789
    """
    with np.errstate(over="ignore"):
        x = np.asarray(x, np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def split_of_rows(rows: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """For each row number 0 (train), 1 (validation) or 2 (test), at random but reproducibly.

    Example:
        >>> np.bincount(split_of_rows(np.arange(10000), (0.8, 0.1, 0.1), seed=0)).tolist()
        [8012, 982, 1006]
    """
    check_shares(shares)
    place = _uniform(rows, seed)
    return np.searchsorted(np.cumsum(shares)[:2], place, side="right").astype(np.uint8)


def check_shares(shares: Sequence[float]) -> tuple[float, float, float]:
    """The shares of the three parts, if they are that.

    Raises:
        ValueError: they are not.
    """
    numbers = isinstance(shares, list | tuple) and all(isinstance(x, int | float) for x in shares)
    if not numbers or (
        len(shares) != 3 or min(shares) < 0 or not abs(sum(shares) - 1) <= 1e-6 or not shares[0]
    ):
        raise ValueError(
            f"split must be three shares that add up to 1, with rows to train on, got {shares}"
        )
    return shares[0], shares[1], shares[2]


def sampled_rows(rows: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """Whether each row number is in a random sample of the given rate, independent of the split.

    Example:
        >>> int(sampled_rows(np.arange(10000), 0.1, seed=0).sum())
        978
    """
    return _uniform(mix64(rows.astype(np.uint64)), seed) < check_rate(rate)


def check_rate(rate: float) -> float:
    """The rate of a down-sampling, if it is one.

    Raises:
        ValueError: it is not in (0, 1].
    """
    if not 0 < rate <= 1:
        raise ValueError(f"negative_rate must be in (0, 1], got {rate}")
    return rate


def _uniform(rows: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each row number."""
    with np.errstate(over="ignore"):
        step = np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        key = mix64(rows.astype(np.uint64) + step)
    return key.astype(np.float64) / 2**64
