"""Odd tables at scoring: read as in training, or refused in a sentence."""

import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from attn_recsys import Scorer

from .shops import FIELDS, LONG, ROWS, TEXT, data, scorer, shop


def test_a_weight_counts_in_what_is_measured(monkeypatch):
    from attn_recsys import serving

    weight = [float(i % 3) for i in range(ROWS)]
    model = scorer(data(shop(w=weight), rest="weight: w\n"))
    monkeypatch.setattr(Scorer, "load", lambda path: model)
    frame = shop(w=weight).select(pl.all().repeat_by(pl.col("w").cast(pl.Int64)).explode())
    frame.with_columns(w=1.0).write_parquet("repeated.parquet")
    once, often = (serving.evaluate("x", file).found for file in ("t.parquet", "repeated.parquet"))
    for name in ("auc", "pr_auc", "logloss", "normalized_entropy", "calibration_ratio"):
        assert once[name] == pytest.approx(often[name], rel=1e-6)


def test_a_scorer_takes_tables_and_rows_and_nothing_else():
    pandas = pytest.importorskip("pandas")
    model, frame = scorer(data(shop())), shop()
    expected = model.score(frame)
    for rows in (
        frame.to_arrow(),
        pandas.DataFrame(frame.to_dict(as_series=False)),
        frame.to_dicts(),
    ):
        assert np.allclose(model.score(rows), expected)
    assert model.score([]).shape == (0,)
    for rows in ({"user": 1, "price": 2}, "t.parquet", frame.lazy()):
        with pytest.raises(TypeError, match="rows must be a table or a list of mappings, got"):
            model.score(rows)


@pytest.mark.parametrize(
    ("keep", "said"),
    [(["row"], "row is a column that the output has itself"), (["tags"], "write a .parquet file")],
)
def test_columns_that_cannot_be_kept_are_refused(monkeypatch, keep, said):
    from attn_recsys import serving

    model = scorer(data(LONG.with_columns(row=1)))
    monkeypatch.setattr(Scorer, "load", lambda path: model)
    with pytest.raises(ValueError, match=said):
        serving.predict_files("x", "t.parquet", "out.csv", keep=keep)
    serving.predict_files("x", "t.parquet", "out.parquet", keep=["user", "user", "tags"])
    assert pl.read_parquet("out.parquet").columns == ["row", "user", "tags", "probability"]


@pytest.mark.parametrize("transform", ["standard", "none", "log2", "minmax", "quantiles"])
@pytest.mark.parametrize("missing", ["zero", "learned"])
def test_a_row_alone_is_scored_as_in_a_table(transform, missing):
    frame = shop(
        item=[f" i{i % 5} " if i % 7 else "" for i in range(ROWS)],
        tags=["|".join(f"t{j}" for j in range(i % 4)) for i in range(ROWS)],
        seen=[[f"i{j}" for j in range(i % 5)] for i in range(ROWS)],
        flag=["" if i % 3 == 0 else f" f{i % 8}" for i in range(ROWS)],
        words=[[f"wö{j}" for j in range(i % 5)] or None for i in range(ROWS)],
        price=[None if i % 6 == 0 else i - 7.5 for i in range(ROWS)],
    )
    fields = (
        f"  user: categorical\n  item: {{kind: categorical, missing: {missing}}}\n"
        f"  price: {{kind: numerical, transform: {transform}, missing: {missing}}}\n"
        "  tags: {kind: multi, max_values: 2, keep: last}\n"
        "  seen: {kind: sequence, target: item, max_values: 3}\n"
        f"  flag: {{kind: categorical, buckets: 5, missing: {missing}}}\n"
        "  words: {kind: multi, buckets: 7, max_values: 3}\n"
    )
    model = scorer(data(frame, fields))
    expected = model.score(frame)
    rows = frame.to_dicts()
    assert model.few.batch(rows[:1]) is not None
    assert np.allclose([model.score([row])[0] for row in rows], expected, atol=1e-6)
    strange = {"user": 1003.0, "item": b"i1", "price": "3", "tags": None, "seen": []}
    strange |= {"flag": None, "words": None}
    assert model.few.batch([strange]) is None and model.score([strange]).shape == (1,)


def test_rows_whose_cells_have_other_types_are_scored_as_each_alone():
    model = scorer(data(shop(tags=["a|b", "b"] * (ROWS // 2)), FIELDS + "  tags: multi\n"))
    row = {"user": 1003, "price": 3.5, "tags": "a|b"}
    changes = [
        {}, {"tags": ["b"]}, {"tags": None}, {"tags": ("a", "b")}, {"user": b"1004"},
        {"user": "1004"}, {"price": datetime.date(2024, 1, 1)}, {"price": Decimal("2.5")},
        {"price": np.float32(3)}, {"price": True}, {"user": 2**70},
    ]  # fmt: skip
    rows = [row | change for change in changes]
    alone = [model.score([row])[0] for row in rows]
    assert len(set(alone)) > 5
    assert np.allclose(model.score(rows * 3), alone * 3)


def test_parts_may_hold_the_columns_of_groups_and_slices_in_other_types(monkeypatch):
    from attn_recsys import serving

    model = scorer(data(shop()))
    monkeypatch.setattr(Scorer, "load", lambda path: model)
    city = [i % 3 for i in range(ROWS)]
    shop(city=city).write_csv("d.csv")
    shop(city=city).write_parquet("d.parquet")
    once = serving.evaluate("x", "d.csv", group="city", slice_by="city")
    twice = serving.evaluate("x", ["d.csv", "d.parquet"], group="city", slice_by="city")
    assert twice.rows == 2 * once.rows and len(twice.slices) == 3
    assert twice.found["grouped_auc"] == pytest.approx(once.found["grouped_auc"])


def test_counts_below_1_are_refused(monkeypatch):
    from attn_recsys import serving

    model = scorer(data(shop()))
    monkeypatch.setattr(Scorer, "load", lambda path: model)
    for at in (0, -3):
        with pytest.raises(ValueError, match=f"at: a group's first rows are 1 or more, got .{at}"):
            serving.evaluate("x", "t.parquet", group="user", cutoffs=[at])
        with pytest.raises(ValueError, match=f"batch_size must be 1 or more, got {at}"):
            serving.predict_files("x", "t.parquet", "o.csv", batch_size=at)


def test_what_is_read_is_not_written_over(monkeypatch):
    from attn_recsys import serving

    model = scorer(data(shop()))
    monkeypatch.setattr(Scorer, "load", lambda path: model)
    for files in ("t.parquet", "./*.parquet", "."):
        with pytest.raises(
            ValueError, match=r"output t\.parquet is one of the files that are read"
        ):
            serving.predict_files("x", files, "t.parquet")
    assert pl.read_parquet("t.parquet").equals(shop())


def test_a_span_of_time_is_kept_in_seconds_where_it_is_text(monkeypatch):
    from attn_recsys import serving

    model = scorer(data(shop(took=datetime.timedelta(milliseconds=2500))))
    monkeypatch.setattr(Scorer, "load", lambda path: model)
    serving.predict_files("x", "t.parquet", "out.csv", keep=["took"])
    assert pl.read_csv("out.csv")["took"].to_list() == [2.5] * ROWS


def test_parts_may_hold_a_kept_column_in_other_types(monkeypatch):
    from attn_recsys import serving

    model = scorer(data(shop()))
    monkeypatch.setattr(Scorer, "load", lambda path: model)
    Path("d").mkdir()
    for kept, found in (
        ([None, "x"], pl.String), ([1, "x"], pl.String), ([1, 1.5], pl.Float64),
        ([None, None], pl.Null), (["x", b"y"], pl.Binary),
    ):  # fmt: skip
        for i, cell in enumerate(kept):
            shop(note=[cell] * ROWS).write_parquet(f"d/{i}.parquet")
        serving.predict_files("x", "d", "o.parquet", keep=["note"])
        assert pl.read_parquet("o.parquet").schema["note"] == found
    serving.predict_files("x", "d", "o.csv", keep=["note"])
    assert pl.read_csv("o.csv")["note"].unique().sort().to_list() == ["x", "y"]
    shop(note=[[1]] * ROWS).write_parquet("d/0.parquet")
    with pytest.raises(ValueError, match="column note: the files hold it in types that have noth"):
        serving.predict_files("x", "d", "o.parquet", keep=["note"])


def test_a_new_file_may_be_written_otherwise_than_the_training_table(monkeypatch):
    from attn_recsys import serving

    model = scorer(data(TEXT, file="t.csv"))
    monkeypatch.setattr(Scorer, "load", lambda path: model)
    serving.predict_files("x", "t.csv", "one.csv")
    other = TEXT.replace("\n0,", "\n-,").replace(",", ";").replace("1;", "1,0;")
    Path("other.csv").write_text(other)
    with pytest.raises(ValueError, match="other.csv: "):
        serving.predict_files("x", "other.csv", "two.csv")
    options = {"separator": ";", "null_values": ["-"], "decimal_comma": True}
    serving.predict_files("x", "other.csv", "two.csv", **options)
    one, two = (pl.read_csv(f"{name}.csv")["probability"] for name in ("one", "two"))
    rows = np.arange(ROWS) % 9 > 1  # whose user was not rewritten
    assert np.allclose(one.filter(pl.Series(rows)), two.filter(pl.Series(rows)))
