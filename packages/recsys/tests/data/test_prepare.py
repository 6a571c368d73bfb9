import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_recsys.data import prepare as module
from attn_recsys.data.blocks import read_blocks
from attn_recsys.data.encode import encoded
from attn_recsys.data.numbers import transformed
from attn_recsys.data.prepare import load_prepared, load_vocabulary, prepare
from attn_recsys.data.vocabulary import Counter, bucket_of, stable_hash
from attn_recsys.schema import LABEL, Field, Schema


def table(**columns):
    frame = pl.DataFrame(columns)
    return lambda: [(frame, np.zeros(len(frame), np.uint8))]


def one(field, cells, folder, label=None, **options):
    schema = Schema("click", (field,))
    label = label or [i % 2 for i in range(len(cells))]
    return prepare(table(click=label, **{field.name: cells}), schema, folder, **options)


def rows(folder, split="train"):
    return pl.read_parquet(folder / split)


def test_values_get_rows_in_the_order_in_which_they_pass_and_rare_ones_share_one(tmp_path):
    prepared = one(Field("c", min_count=2), list("abbaacd"), tmp_path / "p")
    assert rows(tmp_path / "p")["c"].to_list() == [3, 2, 2, 3, 3, 1, 1]
    assert prepared.layout.rows == 4 and prepared.rare == {"c": 1}


def test_an_unseen_value_goes_to_the_rare_row_and_is_counted(tmp_path):
    frame = pl.DataFrame({"click": [0, 1, 0, 1], "c": ["a", "a", "z", "a"]})
    split = np.array([0, 0, 1, 1], np.uint8)
    schema = Schema("click", (Field("c"),))
    prepared = prepare(lambda: [(frame, split)], schema, tmp_path / "p")
    assert rows(tmp_path / "p", "val")["c"].to_list() == [1, 2]
    assert prepared.unseen == {"c": 0.5}
    again = load_prepared(tmp_path / "p")
    vocabulary = load_vocabulary(tmp_path / "p", again)
    cells = pl.DataFrame({"c": ["new", "a", None]})
    coded = encoded(cells, schema, vocabulary, {}, 0, pl.Series([0, 1, 2]))
    assert coded["c"].to_list() == [1, 2, None]


def test_blocks_of_any_size_give_the_same_vocabulary(tmp_path):
    random = np.random.default_rng(0)
    values = pl.Series(random.integers(0, 30, 400)).cast(pl.String)
    places = pl.Series(np.arange(400))
    whole, parts = Counter(9), Counter(9)
    whole.update(values, places)
    for start in range(0, 400, 37):
        parts.update(values[start : start + 37], places[start : start + 37])
    assert whole.passed().equals(parts.passed())


def test_a_learned_missing_cell_has_a_row_of_its_own(tmp_path):
    prepared = one(Field("c", missing="learned"), ["a", None, "a", ""], tmp_path / "p")
    assert prepared.empty == {"c": 0.5}
    assert rows(tmp_path / "p")["c"].to_list() == [2, 3, 2, 3]


def test_hashing_needs_no_vocabulary_and_never_leaves_its_rows(tmp_path):
    prepared = one(Field("c", buckets=7), [str(i) for i in range(50)], tmp_path / "p")
    ids = rows(tmp_path / "p")["c"]
    assert prepared.layout.sizes == (7,) and ids.is_between(1, 7).all() and ids.n_unique() > 4
    assert not list((tmp_path / "p" / "vocabulary").iterdir())


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=20), st.integers(0, 2**31))
def test_the_hash_depends_on_the_string_alone(texts, seed):
    together = stable_hash(pl.Series(texts), 1000, seed).to_list()
    assert together == [stable_hash(pl.Series([t]), 1000, seed)[0] for t in texts]
    assert together == [bucket_of(t, 1000, seed) for t in texts]


def test_log2_leaves_negatives_and_small_numbers_alone():
    field = Field("I2", "numerical", transform="log2")
    found = transformed(pl.Series([-3.0, 0.0, 2.0, 3.0, 1000.0, None]), field, None)
    assert found.to_list() == [-3.0, 0.0, 2.0, 1.0, 47.0, None]


def test_minmax_clips_later_numbers_and_quantiles_fill_bins_evenly(tmp_path):
    field = Field("t", "numerical", transform="minmax")
    assert one(field, [10, 20, 30, 40], tmp_path / "a").ranges == {"t": [10.0, 40.0]}
    assert transformed(pl.Series([0.0, 25.0, 99.0]), field, [10.0, 40.0]).to_list() == [0, 0.5, 1]
    field = Field("t", "numerical", transform="quantiles", bins=4)
    one(field, list(range(100)), tmp_path / "b")
    assert rows(tmp_path / "b")["t"].value_counts()["count"].to_list() == [25] * 4


def test_multi_valued_cells_keep_their_values_and_an_empty_one_is_null_and_counted(tmp_path):
    prepared = one(Field("g", "multi", max_values=2), ["a|b|c", "b", None, ""], tmp_path / "p")
    assert prepared.empty == {"g": 0.5}
    found = rows(tmp_path / "p")["g"].to_list()
    assert [None if x is None else len(x) for x in found] == [2, 1, None, None]
    assert found[0][1] == found[1][0]


@pytest.mark.parametrize(
    ("field", "cells", "message"),
    [
        (Field("I3", "numerical"), ["1", "nan", "2"], "I3 has nan in row 1; set missing='zero'"),
        (Field("I3", "numerical"), ["1", "2", "x7"], "I3 has 'x7' in row 2, not a number"),
        (Field("c"), ["", "", ""], "field c: empty in every counted row"),
        (Field("c"), [1.0, 2.5, 3.0], "must hold strings or integers, got Float64"),
    ],
)
def test_bad_cells_are_refused(tmp_path, field, cells, message):
    with pytest.raises(ValueError, match=message):
        one(field, cells, tmp_path / "p")
    assert not list(tmp_path.glob("p*"))


@pytest.mark.parametrize("split", [0, 2])
def test_a_bad_cell_is_named_by_its_row_in_the_source(tmp_path, split):
    frame = pl.DataFrame({"stars": [3, 5, 1, 3, 5], "x": ["1", "2", "3", "4", "x7"]})
    schema = Schema("stars", (Field("x", "numerical"),), above=3, below=3)  # drops rows 0 and 3
    parts = np.array([0, 2, 0, 0, split], np.uint8)
    with pytest.raises(ValueError, match="x has 'x7' in row 4"):
        prepare(lambda: [(frame, parts)], schema, tmp_path / "p")


def test_nan_counts_as_missing_where_that_is_asked_for(tmp_path):
    one(
        Field("I3", "numerical", missing="zero", transform="none"),
        ["1", "nan", "inf"],
        tmp_path / "p",
    )
    assert rows(tmp_path / "p")["I3"].to_list() == [1.0, None, None]


def test_a_label_that_is_neither_0_nor_1_is_refused(tmp_path):
    with pytest.raises(ValueError, match="label column click has 2 in row 1; allowed are 0 and 1"):
        one(Field("c"), ["a", "b", "c"], tmp_path / "p", label=[0, 2, 1])


def test_a_rating_becomes_a_label_and_the_middle_is_dropped(tmp_path):
    schema = Schema("stars", (Field("c"),), above=3, below=3)
    prepare(table(stars=[5, 3, 1], c=["a", "b", "c"]), schema, tmp_path / "p")
    assert rows(tmp_path / "p")[LABEL].to_list() == [1, 0]


def test_an_interrupted_preparation_leaves_nothing_behind(tmp_path):
    def blocks():
        yield pl.DataFrame({"click": [0, 1], "c": ["a", "b"]}), np.zeros(2, np.uint8)
        if passes.pop():
            raise KeyboardInterrupt

    passes = [True, False]
    with pytest.raises(KeyboardInterrupt):
        prepare(blocks, Schema("click", (Field("c"),)), tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_shards_hold_full_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP", 10)
    monkeypatch.setattr(module, "SHARD", 30)
    one(Field("c"), [str(i % 5) for i in range(73)], tmp_path / "p")
    names = sorted(path.name for path in (tmp_path / "p" / "train").iterdir())
    assert names == [f"part-0000{i}.parquet" for i in range(3)]
    assert len(rows(tmp_path / "p")) == 73


def test_an_edited_folder_and_a_foreign_schema_are_refused(tmp_path):
    prepared = one(Field("c"), ["a", "b"], tmp_path / "p")
    other = one(Field("d"), ["a", "b"], tmp_path / "q")
    with pytest.raises(ValueError, match="was made for schema .* other fields, order or vocab"):
        prepared.check_same(other.hash, "the checkpoint")
    content = prepared.to_dict() | {"seed": 9}
    with pytest.raises(ValueError, match="was edited"):
        type(prepared).from_dict(content)
    swapped = dataclasses.replace(prepared, vocabulary_hash="00000000")
    assert swapped.hash != prepared.hash


def test_missing_columns_and_wrong_widths_are_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("click,a\n1,x\n")
    with pytest.raises(ValueError, match="column b missing; it has click, a"):
        list(read_blocks(path, ["click", "b"]))
    with pytest.raises(ValueError, match="2 columns, but the schema names 3"):
        list(read_blocks(path, ["a"], names=["click", "a", "b"]))
    path.write_text("click,a\n1,x\n1,x,y\n")
    with pytest.raises(ValueError, match="Expected 2 columns, got 3"):
        list(read_blocks(path, ["a"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fields": {"a": "categorical"}}, "label missing"),
        ({"label": "y", "fields": {"a": "text"}}, "kind must be one of"),
        ({"label": "y", "fields": {"a": {"kindd": "multi"}}}, r"unknown settings \['kindd'\]"),
        ({"label": "y", "fields": {"a": {"min_count": 0}}}, "min_count must be an integer >= 1"),
        ({"label": "y", "fields": {"y": "categorical"}}, "label and fields must differ"),
        ({"label": "y", "fields": {"a": {"transform": "log2"}}}, "transform is for numerical"),
        ({"label": "y", "fields": {"a": "multi"}, "x": 1}, r"unknown keys \['x'\]"),
    ],
)
def test_bad_schemas_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        Schema.parse(content)
