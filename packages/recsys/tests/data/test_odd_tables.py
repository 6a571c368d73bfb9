"""Tables as programs and people leave them: read rightly, or refused in a sentence."""

import datetime
import gzip
import uuid
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attn_recsys import Scorer
from attn_recsys.data.blocks import read_blocks
from attn_recsys.data.module import times_of
from attn_recsys.data.numbers import as_numbers
from attn_recsys.data.text import as_text, plain_text
from attn_recsys.data.vocabulary import Counter
from attn_recsys.schema import Field

from .shops import FIELDS, LONG, ROWS, TEXT, data, scorer, shop

DAYS = [datetime.datetime(2024, 1, 1 + i % 20, 3, i) for i in range(ROWS)]


@pytest.mark.parametrize(
    ("table", "file"),
    [
        ("\ufeff" + TEXT.replace("\n", "\r\n"), "t.csv"),
        (TEXT.replace("user", '"user"', 1), "t.csv"),
        (TEXT.replace("\n", "\n\n", 3), "t.csv"),
        ("\r\n\n" + TEXT, "t.csv"),
        (TEXT.replace("price", 'price,"of a\n""piece"""', 1).replace(",1\n", ',"a\nb",1\n')
         .replace(",0\n", ",,0\n"), "t.csv"),
        (TEXT.replace(",", "\t"), "t.tsv"),
        (gzip.compress(TEXT.encode()), "t.csv.gz"),
    ],
    ids=[
        "byte order mark", "quoted name", "empty lines", "begins empty", "lines within", "tabs",
        "gzip",
    ],
)  # fmt: skip
def test_text_files_hold_the_same_table(table, file):
    prepared = data(table, file=file).prepared
    assert sum(prepared.rows.values()) == ROWS and prepared.kinds == {"user": "integer"}


@pytest.mark.parametrize(
    ("labels", "label", "ones"),
    [
        (["yes", "no"], "{column: bought, positive: yes}", 0),
        (["no", "yes"], "{column: bought, positive: no}", 0),
        (["True", "False"], "{column: bought, positive: true}", 0),
        (["on", "off"], "{column: bought, positive: off}", 1),
        ([2, 1], "{column: bought, positive: 2}", 0),
        ([2.0, 1.0], "{column: bought, positive: 2}", 0),
        ([2, 1], "{column: bought, positive: 2.0}", 0),
        (pl.Series(["1", "0"] * (ROWS // 2)).cast(pl.Categorical), "bought", 0),
        ([b"1", b"0"], "bought", 0),
    ],
)
def test_the_positive_label_is_found_however_it_is_written(labels, label, ones):
    cells = labels if isinstance(labels, pl.Series) else labels * (ROWS // 2)
    found = data(shop(bought=cells), label=label, rest="split: [1, 0, 0]\n")
    [batch] = found.loader("train", shuffle=False)
    assert batch["label"].tolist() == [1 - ones, ones] * (ROWS // 2)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([1000 + i % 9 for i in range(ROWS)], [1000.0 + i % 9 for i in range(ROWS)]),
        ([None if i % 9 == 0 else 1000.0 + i % 9 for i in range(ROWS)],
         [None if i % 9 == 0 else 1000 + i % 9 for i in range(ROWS)]),
        ([i % 9 for i in range(ROWS)], [f"+{i % 9}" for i in range(ROWS)]),
        ([i % 2 == 0 for i in range(ROWS)], [float(i % 2 == 0) for i in range(ROWS)]),
        (pl.Series([f"{i % 9}.50" for i in range(ROWS)]).cast(pl.Decimal(6, 2)),
         [f"{i % 9}.5" for i in range(ROWS)]),
        (pl.Series([f"{i % 9}.00" for i in range(ROWS)]).cast(pl.Decimal(6, 2)),
         [i % 9 for i in range(ROWS)]),
        ([b"a%d" % (i % 9) for i in range(ROWS)], [f"a{i % 9}" for i in range(ROWS)]),
        (pl.Series(DAYS).dt.replace_time_zone("UTC"), [x.isoformat() for x in DAYS]),
        ([f"{i % 9}.0" for i in range(ROWS)], [i % 9 for i in range(ROWS)]),
        ([i % 2 for i in range(ROWS)], [i % 2 == 1 for i in range(ROWS)]),
        (DAYS, [f"{x:%Y-%m-%dT%H:%M}Z" for x in DAYS]),
        ([x.replace(microsecond=500) for x in DAYS], [f"{x}.0005" for x in DAYS]),
        ([x.date() for x in DAYS], [f"{x:%Y-%m-%d}T02:00:00+02:00" for x in DAYS]),
        (pl.Series(DAYS).dt.replace_time_zone("Asia/Tokyo"),
         [x - datetime.timedelta(hours=9) for x in DAYS]),
    ],
)  # fmt: skip
def test_ids_that_changed_their_type_on_the_way_are_the_same(before, after):
    model = scorer(data(shop(user=before)))
    assert len(np.unique(model.score(shop(user=before, price=0.0)))) > 1
    assert np.array_equal(model.score(shop(user=before)), model.score(shop(user=after)))


def test_the_next_day_knows_ids_that_changed_their_type_on_the_way(monkeypatch):
    before = data(shop(user=[i % 2 == 0 for i in range(ROWS)]))
    model = scorer(before)
    monkeypatch.setattr(Scorer, "load", lambda path: model)
    rows = [f"{i}.0" for i in range(2)] * (ROWS // 2) + ["perhaps"]
    after = shop().vstack(shop()[:1]).with_columns(user=pl.Series(rows))
    found = data(after, file="later.csv", rest="split: [1, 0, 0]\n", extends="x").prepared
    assert found.kinds == before.prepared.kinds == {"user": "boolean"}
    assert found.layout.sizes == (4, 1)


def test_a_value_counts_in_all_its_spellings():
    counter = Counter(threshold=3)
    counter.update(pl.Series(["1", "1.0", "2", "1", "2", "2"]), pl.Series(range(6)))
    counter.rename(lambda x: as_text(x, Field("user"), "integer"))
    assert counter.passed()["value"].to_list() == ["2", "1"]


@pytest.mark.parametrize(
    "cells",
    [
        DAYS,
        [x.isoformat() for x in DAYS],
        [f"{x}Z" for x in DAYS],
        pl.Series([f"{i}.50" for i in range(ROWS)]).cast(pl.Decimal(20, 2)),
        [datetime.timedelta(hours=i) for i in range(ROWS)],
        [str(i) for i in range(ROWS)],
        [i % 2 == 0 for i in range(ROWS)],
    ],
)
def test_numbers_of_any_type_are_numbers(cells):
    found = data(shop(price=cells), rest="split: [1, 0, 0]\n")
    [batch] = found.loader("train", shuffle=False)
    value = batch["value"][:, 1].double()
    assert abs(value.mean()) < 1e-5 and abs(value.std(correction=0) - 1) < 1e-5
    huge = shop(price=[1e30] * ROWS)
    assert np.isfinite(scorer(found).score(huge)).all()


@pytest.mark.parametrize("cells", [[["a", "b"]], [[1, 2]], ["a|b"]])
def test_lists_are_lists_of_any_type(cells):
    series = pl.Series(cells * ROWS)
    arrays = series.list.to_array(2) if isinstance(series.dtype, pl.List) else series
    for column in (series, arrays):
        found = data(shop(tags=column), FIELDS + "  tags: multi\n")
        assert found.prepared.layout.sizes[-1] == 3
    assert scorer(found).score(shop(tags=["a|b"] * ROWS)).shape == (ROWS,)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (pa.array([Decimal(f"{i}.50") for i in range(ROWS)], pa.decimal256(50, 2)),
         [f"{i}.5" for i in range(ROWS)]),
        (pa.array([uuid.UUID(int=i).bytes for i in range(ROWS)], pa.uuid()),
         [str(uuid.UUID(int=i)) for i in range(ROWS)]),
        (pa.array([i % 2 for i in range(ROWS)], pa.int8()).cast(pa.bool8()), [0, 1] * (ROWS // 2)),
    ],
)  # fmt: skip
def test_types_that_polars_has_not_are_read(before, after):
    table = shop().to_arrow().drop_columns("user").append_column("user", before)
    pq.write_table(table, "t.parquet")
    model = scorer(data(None))
    expected = model.score(table)
    assert len(set(model.score(table.set_column(0, "price", [[0.0] * ROWS])))) > 1
    assert np.array_equal(model.score(shop(user=after)), expected)
    with pytest.raises(ValueError, match="column user is there twice"):
        model.score(table.append_column("user", before))


def test_a_folder_names_a_column_of_its_files():
    for day in (1, 2):
        Path(f"d/day={day}").mkdir(parents=True)
        shop().write_parquet(f"d/day={day}/part.parquet")
    found = data(None, FIELDS + "  day: categorical\n", file="d")
    assert found.prepared.layout.sizes[-1] == 3 and found.prepared.kinds["day"] == "integer"


@pytest.mark.parametrize("name", ["yes", "1", "u" * 300, "a/b", ".."])
def test_any_name_is_a_column(name):
    key = f"'{name}'" if name == ".." else name
    found = data(shop().rename({"user": name}), f"  {key}: categorical\n")
    assert scorer(found).score([{name: 1003}]).shape == (1,)


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (TEXT.encode("utf-16"), {"file": "t.csv"}, "t.csv is UTF-16 text; save it as UTF-8"),
        (TEXT.replace("1", "\xe9", 1).encode("latin-1"), {"file": "t.csv"}, "save it as UTF-8"),
        ("", {"file": "t.csv"}, "t.csv: Empty CSV file"),
        ("user,price,bought\n", {"file": "t.csv"}, "no row is left to train on"),
        ("user,price,bought\n1,2,1\n3,4\n", {"file": "t.csv"}, "Expected 3 columns, got 2"),
        ("{}", {"file": "t.jsonl"}, ".jsonl is not read; save it as CSV, TSV or Parquet"),
        (TEXT, {"file": "t.csv.gz"}, "t.csv.gz: "),
        ("garbage", {}, "t.parquet: Parquet"),
        (shop(), {"rest": "separator: ';;'\n", "file": "t.csv"}, "one ASCII character, got ';;'"),
        (shop(), {"label": "{column: bought, positive: maybe}"}, "no row is 'maybe'"),
        (shop(bought=[[1]] * ROWS), {}, "label column bought must hold one value in a cell"),
        (shop(bought=3), {"label": "{column: bought, above: 3, below: 3}"}, "no row is left"),
        (shop(), {"label": "[bought]"}, "label must be one name or value"),
        (shop(user=[{"a": 1}] * ROWS), {}, "must hold one value in a cell, got Struct"),
        (shop(user=[b"\xff"] * ROWS), {}, "holds bytes that are no UTF-8 text"),
        (shop(user=[i / 2 for i in range(ROWS)]), {}, "must hold strings or integers, got Float64"),
        (shop(price=[1e300] * ROWS), {}, "numbers may be as large as 1e+18"),
        (shop(price=["$1"] * ROWS), {}, "field price has '$1' in row 1, not a number"),
        (LONG, {"rest": "group: tags\n"}, "column tags must hold one value in a cell"),
        (shop(w=0.0), {"rest": "weight: w\n"}, "all rows of part train have weight 0"),
        (shop(at=5), {"rest": "time: at\n"}, "no row is left to train on"),
        (shop(at=["3", "x"] * (ROWS // 2)), {"rest": "time: at\n"}, "time column at has 'x'"),
        (TEXT.replace("price", "pr\xefce", 1).encode("latin-1"), {"file": "t.csv"}, "as UTF-8"),
        (shop(), {"rest": "separator: 1\n", "file": "t.csv"}, "one ASCII character, got 1"),
        (shop(), {"rest": "decimal_comma: 'no'\n"}, "must be true or false, got 'no'"),
        (shop(), {"label": "{column: bought, above: '3', below: 3}"}, "are numbers, got '3' and 3"),
        (shop(), {"label": "{column: bought, above: .nan, below: 3}"}, "are numbers, got nan"),
        (shop(), {"rest": "split: [.nan, 0.5, 0.5]\n"}, "split must be three shares"),
        (shop(), {"fields": "  user: 5\n"}, "field user: its kind or a mapping"),
        (shop(), {"fields": "  user: {name: item}\n"}, "field user: unknown settings ['name']"),
        (shop(), {"fields": "  user: {kind: multi, separator: 5}\n"}, "characters, got 5"),
        (shop(), {"rest": "split: abc\n"}, "split must be three shares"),
        (shop(), {"fields": "  null: categorical\n"}, "a name like null stands in quotes"),
        (shop(), {"fields": "  user: {kind: categorical, min_count: true}\n"}, "min_count must be"),
        (shop(), {"fields": "  user: {kind: categorical, buckets: 9999999999}\n"}, "below 2^31"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(table, options, said):
    with pytest.raises(ValueError) as error:
        data(table, **options)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_cells_of_several_lines_may_lie_across_blocks():
    rows = 3000
    lines = "".join(f'"line one\nline {i} of ""text"", more",{i}\n' for i in range(rows))
    Path("t.csv").write_text("note,user\n" + lines)
    frame = pl.concat(read_blocks("t.csv", ["user"], block_bytes=4096))
    assert frame["user"].to_list() == [str(i) for i in range(rows)]


def test_times_are_the_same_in_any_unit_and_zone():
    naive = pl.Series("t", DAYS)
    seconds = naive.dt.epoch("us").cast(pl.Float64)
    zoned = naive.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
    text = zoned.dt.to_string("%Y-%m-%dT%H:%M:%S%:z")
    for cells in (naive.cast(pl.Datetime("ns")), naive.cast(pl.Datetime("ms")), zoned, text):
        assert times_of(pl.DataFrame({"t": cells}), "t").tolist() == seconds.to_list()
        prices = as_numbers(cells, Field("t", "numerical"), pl.Series(range(ROWS)))
        assert prices.to_list() == (seconds / 1e6).to_list()
    with pytest.raises(ValueError, match="time column t has nan"):
        times_of(pl.DataFrame({"t": [0.0, float("nan")]}), "t")
    spans = pl.Series([datetime.timedelta(milliseconds=i) for i in range(ROWS)])
    for unit in ("ms", "us", "ns"):
        numbers = as_numbers(spans.cast(pl.Duration(unit)), Field("t", "numerical"), spans)
        assert numbers.to_list() == pytest.approx([i / 1e3 for i in range(ROWS)])
        assert plain_text(spans.cast(pl.Duration(unit)))[7] == "7000"


def test_numbers_of_a_text_file_are_read_alike_in_every_column():
    rest = "decimal_comma: true\nweight: w\nseparator: ';'\n"
    lines = "".join(f"{i % 9}; {i},5;{i % 5},5; 0,5\n" for i in range(ROWS))
    label = "{column: bought, above: 2.6, below: 2.4}"
    found = data("user;price;bought;w\n" + lines, label=label, rest=rest, file="t.csv").prepared
    assert sum(found.rows.values()) == ROWS * 4 // 5
    truth = pl.Series(["true", "False", None])
    assert as_numbers(truth, Field("x", "numerical"), truth).to_list() == [1.0, 0.0, None]
