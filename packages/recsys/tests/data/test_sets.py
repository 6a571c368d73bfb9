import gzip

import polars as pl
import pytest

from attn_recsys.data import KDD12, Avazu, Criteo, InstEval, MovieLens1M, SyntheticClicks
from attn_recsys.data.advertising import AVAZU
from attn_recsys.data.synthetic import generate
from attn_recsys.metrics import auc


def prepared(data):
    data.prepare_data()
    data.setup()
    return data.prepared


def test_criteo_is_prepared_as_by_the_authors(shared):
    data = Criteo(str(shared / "criteo-10k" / "train_examples.txt.gz"), "official")
    found = prepared(data)
    assert found.layout.rows == 1842
    assert found.rows == {"train": 8000, "val": 1000, "test": 1000}
    with gzip.open(data.path, "rt") as file:
        first = next(file).rstrip("\n").split("\t")
    assert len(first) == 40
    numbers = pl.concat(
        [pl.read_parquet(data.prepared_folder / s) for s in ("train", "val", "test")]
    )
    assert (numbers["I2"] < 0).sum() == 975  # negatives pass the transform
    big = numbers["I5"].drop_nulls()
    assert big.filter(big > 2).cast(pl.Int64).cast(pl.Float32).equals(big.filter(big > 2))


def test_leak_free_counting_sees_training_rows_only(shared):
    path = str(shared / "criteo-10k" / "train_examples.txt.gz")
    assert prepared(Criteo(path)).layout.rows < 1842


def test_ml1m_is_prepared_as_by_the_authors(shared):
    found = prepared(MovieLens1M(str(shared / "ml-1m"), "official"))
    assert found.rows == {"train": 591_209, "val": 73_901, "test": 73_902}
    assert found.features == 3529 and found.layout.rows == 3600
    assert "timestamp" not in found.layout.names  # the shared copy has none


def test_insteval_has_both_ids(shared):
    found = prepared(InstEval(str(shared / "insteval" / "insteval.parquet")))
    assert sum(found.rows.values()) == 55_812 and found.layout.names[:2] == ("s", "d")


def test_avazu_values_are_rare_until_their_fifth_occurrence(tmp_path):
    rows = [["1" if i % 3 else "0", *(f"{name}{i % 2}" for name in AVAZU)] for i in range(40)]
    frame = pl.DataFrame(rows, schema=["click", *AVAZU], orient="row")
    frame.write_csv(tmp_path / "train.csv")
    data = Avazu(str(tmp_path / "train.csv"), "official")
    found = prepared(data)
    seen = pl.concat([pl.read_parquet(data.prepared_folder / s) for s in ("train", "val", "test")])
    # 4 rows of each of 2 values are rare; rows 0..22 are the rare ones, then values as they pass.
    assert [(seen[name] == i).sum() for i, name in enumerate(AVAZU)] == [8] * 23
    assert found.layout.rows == 23 + 46
    assert set(seen["id"].unique()) == {0, 23, 46}


def test_kdd12_joins_profiles_and_treats_user_0_as_missing(tmp_path):
    lines = []
    for i in range(40):
        user = "0" if i % 4 == 0 else "7"
        cells = [i % 2, 1, "u", "a", "v", 3, 1, "q", "k", "t", "d", user]
        lines.append("\t".join(map(str, cells)))
    (tmp_path / "training.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "userid_profile.txt").write_text("7\t2\t5\n8\t1\t3\n")
    data = KDD12(str(tmp_path / "training.txt"), "official")
    found = prepared(data)
    seen = pl.concat([pl.read_parquet(data.prepared_folder / s) for s in ("train", "val", "test")])
    assert seen["user_id"].null_count() == 10 and seen["gender"].null_count() == 10
    assert set(seen["gender"].drop_nulls()) == {11} and set(seen["age"].drop_nulls()) == {13}
    assert found.layout.numerical == ("impression", "depth", "position")
    (tmp_path / "userid_profile.txt").unlink()
    with pytest.raises(FileNotFoundError, match="it belongs beside the training file"):
        KDD12(str(tmp_path / "training.txt"), "official").build(tmp_path / "q")


def test_generated_clicks_have_the_probabilities_they_tell():
    frame = pl.concat(list(generate(50_000)))
    p, click = frame["p"].to_numpy(), frame["click"].to_numpy()
    assert abs(p.mean() - click.mean()) < 0.01
    assert 0.8 < auc(click, p) < 0.95
    assert frame.equals(pl.concat(list(generate(50_000))))


def test_generated_clicks_are_prepared_without_keeping_them():
    found = prepared(SyntheticClicks(rows=3000))
    assert sum(found.rows.values()) == 3000


def test_a_folder_made_from_other_settings_is_refused(tmp_path):
    folder = str(tmp_path / "p")
    prepared(SyntheticClicks(rows=500, folder=folder))
    prepared(SyntheticClicks(rows=500, folder=folder))
    with pytest.raises(ValueError, match="prepared from other files or settings"):
        prepared(SyntheticClicks(rows=501, folder=folder))


def test_missing_sources_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file fits"):
        prepared(Criteo(str(tmp_path / "none.txt")))
    with pytest.raises(FileNotFoundError, match=r"users\.dat does not exist"):
        prepared(MovieLens1M(str(tmp_path)))
