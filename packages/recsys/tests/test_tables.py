"""Tables as they come, through preparation, training and scoring."""

import datetime
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import attn_recsys
from attn_recsys import Scorer, cli
from attn_recsys.data import TableData
from attn_recsys.data.module import with_split_by_group, with_split_by_time
from attn_recsys.schema import Schema

ROWS = 600
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.callbacks", "null")


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["attn-recsys", *map(str, words)])
    return cli.main()


def shop(**columns):
    random = np.random.default_rng(0)
    user, item = random.integers(0, 20, ROWS), random.integers(0, 12, ROWS)
    frame = {
        "user": [1000 + i for i in user],
        "item": [f"i{i}" for i in item],
        "price": np.round(random.random(ROWS) * 50, 2),
        "bought": ((user + item) % 2).astype(int),
    }
    return pl.DataFrame(frame | columns)


FIELDS = "  user: categorical\n  item: categorical\n  price: {kind: numerical, missing: zero}\n"


def trained(monkeypatch, frame, fields=FIELDS, label="bought", rest="", file="shop.csv", flags=()):
    frame.write_parquet(file) if file.endswith("parquet") else frame.write_csv(file)
    Path("shop.yaml").write_text(f"files: {file}\nlabel: {label}\nfields:\n{fields}{rest}")
    words = ("--config", "table-fm", "--data.schema", "shop.yaml", "--data.batch_size", 64)
    assert run(monkeypatch, "fit", *words, "--trainer.max_epochs", 1, *QUIET, *flags) == 0
    return sorted(Path("runs/table-fm").glob("*/last.ckpt"))[-1]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_checkpoint_scores_on_a_machine_without_the_training_data(monkeypatch, tmp_path):
    frame = shop()
    path = trained(monkeypatch, frame)
    words = ("--input", "new.csv", "--output", "out/scores.csv", "--keep", "[user,item]")
    frame.drop("bought").write_csv("new.csv")
    assert run(monkeypatch, "predict", "--ckpt", path, *words) == 0
    expected = pl.read_csv("out/scores.csv")
    assert expected.columns == ["row", "user", "item", "probability"]
    assert expected["user"].equals(frame["user"]) and len(expected) == ROWS

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(path, elsewhere / "model.ckpt")
    for name in ("runs", "cache"):
        shutil.rmtree(tmp_path / name)
    for name in ("shop.csv", "shop.yaml"):
        (tmp_path / name).unlink()
    monkeypatch.chdir(elsewhere)
    scorer = Scorer.load("model.ckpt")
    assert np.allclose(scorer.score(frame), expected["probability"], atol=1e-6)
    assert np.allclose(scorer.score(frame.to_dicts()[:3]), expected["probability"][:3], atol=1e-6)
    assert np.allclose(scorer.score(frame.to_arrow()), scorer.score(frame))
    scorer.save_pretrained("kept")
    assert np.array_equal(Scorer.from_pretrained("kept").score(frame), scorer.score(frame))

    frame.write_parquet("labelled.parquet")
    assert run(monkeypatch, "test", "--ckpt", "model.ckpt", "--input", "labelled.parquet") == 0
    words = ("calibrate", "--ckpt", "model.ckpt", "--input", "labelled.parquet")
    assert run(monkeypatch, *words) == 0
    assert run(monkeypatch, "export", "--ckpt", "model.ckpt", "--format", "torch") == 0
    assert json.loads(Path("model-tables/schema.json").read_text())["schema"]["label"] == "bought"


def test_vocabularies_too_large_for_a_checkpoint_lie_beside_it(monkeypatch):
    monkeypatch.setattr(attn_recsys.scoring, "INSIDE", 10)
    path = trained(monkeypatch, shop())
    assert "vocabulary" not in torch.load(path, weights_only=True)
    [tables] = path.parent.glob("tables-*")
    assert Scorer.load(path).score(shop()).shape == (ROWS,)
    tables.rename("away")
    with pytest.raises(FileNotFoundError, match=r"needs its vocabularies, .*tables-"):
        Scorer.load(path)


def test_other_spellings_of_the_training_values_are_the_same_values(monkeypatch):
    days = [datetime.date(2024, 1, 1 + i % 9) for i in range(ROWS)]
    flag = ["True" if i % 3 else "False" for i in range(ROWS)]
    fields = FIELDS + "  day: categorical\n  flag: categorical\n"
    frame = shop(day=days, flag=flag)
    scorer = Scorer.load(trained(monkeypatch, frame, fields))
    expected = scorer.score(frame)
    other = frame.with_columns(
        pl.col("user").cast(pl.Float64),
        pl.col("item").cast(pl.Categorical),
        pl.col("price").cast(pl.Decimal(10, 2)),
        pl.col("day").cast(pl.Datetime("ns")),
        pl.col("flag") == "True",
    )
    assert np.array_equal(scorer.score(other), expected)
    texts = frame.with_columns(
        (pl.col("user").cast(pl.String) + ".0"),
        (pl.col("day").cast(pl.String) + "T00:00:00"),
        pl.col("flag").str.to_lowercase(),
    )
    assert np.array_equal(scorer.score(texts), expected)


def test_values_that_training_did_not_see_are_said_and_wholly_new_ones_refused(monkeypatch, capsys):
    frame = shop()
    path = trained(monkeypatch, frame)
    words = ("predict", "--ckpt", path, "--input", "new.csv", "--output", "out.parquet")
    half = pl.when(pl.int_range(pl.len()) % 2 == 0).then(-1).otherwise(pl.col("user")).alias("user")
    frame.with_columns(half).write_csv("new.csv")
    assert run(monkeypatch, *words) == 0
    assert "user: 50.0% of the values are rare or unseen" in capsys.readouterr().out
    frame.with_columns(user=pl.col("user") + 5000).write_csv("new.csv")
    assert run(monkeypatch, *words) == 2
    assert "field user: no value was seen in training" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--allow_unseen", "true") == 0


def test_numbers_beyond_the_training_range_give_probabilities_and_are_said(monkeypatch, capsys):
    frame = shop()
    path = trained(monkeypatch, frame)
    wild = pl.Series("price", [1e30, 1e39, -1e300, 25.0]).to_frame()
    pl.concat([frame[:4].drop("price", "bought"), wild], how="horizontal").write_csv("new.csv")
    words = ("predict", "--ckpt", path, "--input", "new.csv", "--output", "out.csv")
    assert run(monkeypatch, *words) == 0
    assert "price: 3 numbers lie beyond those of the training rows" in capsys.readouterr().out
    assert pl.read_csv("out.csv")["probability"].is_between(0, 1).all()


@pytest.mark.parametrize("name", ["label", "group", "p", "index", "a / b", 'say "x", y', ".hidden"])
def test_a_field_may_have_any_name_and_the_label_does_not_leak(monkeypatch, name):
    random = np.random.default_rng(1)
    frame = pl.DataFrame(
        {
            "clicked": random.integers(0, 2, 2000),
            name: random.integers(0, 3, 2000),
            "other": random.integers(0, 3, 2000),
        }
    )
    fields = f"  {json.dumps(name)}: categorical\n  other: categorical\n"
    path = trained(monkeypatch, frame, fields, label="clicked", rest="group: other\n")
    assert run(monkeypatch, "test", "--ckpt", path, "--trainer.enable_progress_bar", "false") == 0
    found = json.loads(path.with_name("last.test.json").read_text())
    assert 0.35 < found["test/auc"] < 0.65


@pytest.mark.parametrize(
    ("labels", "positive"),
    [(["no", "yes"], "yes"), ([False, True], True), (["0.0", "1.0"], None), (["a", "b"], "b")],
)
def test_labels_are_what_the_schema_says(monkeypatch, labels, positive):
    given = {"column": "y"} | ({} if positive is None else {"positive": positive})
    schema = Schema.parse({"label": given, "fields": {"c": "categorical"}})
    frame = pl.DataFrame({"y": [labels[i % 2] for i in range(10)]})
    assert attn_recsys.data.encode.labels(frame, schema, 0).tolist() == [0, 1] * 5


def test_true_and_false_are_labels_as_they_are():
    schema = Schema.parse({"label": "y", "fields": {"c": "categorical"}})
    for cells in (["True", "False"], ["true", "false"], [True, False]):
        frame = pl.DataFrame({"y": cells})
        assert attn_recsys.data.encode.labels(frame, schema, 0).tolist() == [1, 0]


def test_text_as_programs_write_it_is_read(monkeypatch):
    frame = shop()
    lines = ['\ufeff"user","item","price","bought"']
    for user, item, price, bought in frame.rows():
        number = "NA" if user % 7 == 0 else str(price).replace(".", ",")
        lines.append(f'{user};"{item}";{number};{"yes" if bought else "no"}')
    lines[0] = lines[0].replace(",", ";")
    Path("r.csv").write_text("\n".join(lines), encoding="utf-8")
    text = (
        "files: r.csv\nseparator: ';'\ndecimal_comma: true\n"
        f"label: {{column: bought, positive: yes}}\nfields:\n{FIELDS}"
    )
    Path("r.yaml").write_text(text)
    data = TableData("r.yaml")
    data.prepare_data()
    data.setup()
    assert sum(data.prepared.rows.values()) == ROWS
    assert data.prepared.empty["price"] == pytest.approx((frame["user"] % 7 == 0).mean())
    mean, _, low, high = data.prepared.ranges["price"]
    assert 0 <= low < mean < high <= 50


def test_a_folder_of_parts_is_one_table(monkeypatch):
    frame, parts = shop(), Path("parts")
    parts.mkdir()
    for i in range(3):
        frame[i * 200 : (i + 1) * 200].write_parquet(parts / f"part-{i}.parquet")
    (parts / "_SUCCESS").touch()
    Path("s.yaml").write_text(f"files: parts\nlabel: bought\nfields:\n{FIELDS}")
    data = TableData("s.yaml")
    data.prepare_data()
    data.setup()
    assert sum(data.prepared.rows.values()) == ROWS


def test_hashed_lists_keep_the_first_or_the_last_values(monkeypatch, capsys):
    tags = ["|".join(f"t{j}" for j in range(i % 5)) for i in range(ROWS)]
    kept = {}
    for keep in ("first", "last"):
        line = f"  tags: {{kind: multi, buckets: 50, max_values: 2, keep: {keep}}}\n"
        path = trained(monkeypatch, shop(tags=tags), FIELDS + line)
        assert "of the cells hold more than 2 values" in capsys.readouterr().err
        scorer = Scorer.load(path)
        coded = scorer.coded(shop(tags=tags))["tags"]
        assert coded.list.len().max() == 2
        kept[keep] = [coded[i].to_list() for i in (2, 4)]  # t0|t1 and t0|t1|t2|t3
    assert kept["first"][0] == kept["first"][1] and kept["last"][0] != kept["last"][1]


def test_a_timestamp_as_it_is_trains(monkeypatch):
    frame = shop(at=1_700_000_000 + np.arange(ROWS))
    path = trained(monkeypatch, frame, FIELDS + "  at: numerical\n")
    assert (
        run(monkeypatch, "validate", "--ckpt", path, "--trainer.enable_progress_bar", "false") == 0
    )
    found = json.loads(path.with_name("last.validate.json").read_text())
    assert found["val/logloss"] < 0.75


def test_a_number_that_will_not_train_is_named(capsys):
    frame = shop(at=1_700_000_000 + np.arange(ROWS))
    schema = Schema.parse(
        {"label": "bought", "fields": {"at": {"kind": "numerical", "transform": "none"}}}
    )
    parts = [(frame, np.zeros(ROWS, np.uint8))]
    attn_recsys.data.prepare.prepare(lambda: parts, schema, "p")
    assert "field at: values around 1.7e+09" in capsys.readouterr().err


def test_a_part_of_one_class_or_without_rows_lets_training_go_on(monkeypatch, capsys):
    frame = shop().with_columns(bought=pl.when(pl.int_range(pl.len()) < 480).then("bought"))
    frame = frame.with_columns(bought=pl.col("bought").fill_null(0), at=pl.int_range(pl.len()))
    trained(monkeypatch, frame, rest="time: at\n")
    assert "val/auc is undefined: all 60 rows have one label" in capsys.readouterr().err
    path = trained(monkeypatch, shop(), rest="split: [1, 0, 0]\n")
    assert not path.with_name("best.ckpt").exists()
    assert Scorer.load(path).prepared.rows == {"train": ROWS, "val": 0, "test": 0}


def test_rows_are_split_by_time_and_by_group():
    frame = pl.DataFrame({"at": ["2024-01-03", "2024-01-01", "2024-01-02"], "g": ["a", "b", "a"]})
    edges = (1704153600e6, 1704240000e6)  # the beginnings of the 2nd and the 3rd
    [(_, split)] = with_split_by_time(iter([frame]), "at", edges)
    assert split.tolist() == [2, 0, 1]
    groups = pl.DataFrame({"g": [f"g{i % 50}" for i in range(1000)]})
    [(_, split)] = with_split_by_group(iter([groups]), "g", (0.6, 0.2, 0.2), 0)
    dealt = (
        groups.with_columns(split=pl.Series(split)).group_by("g").agg(pl.col("split").n_unique())
    )
    assert dealt["split"].max() == 1 and set(split.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("cells", "field", "said"),
    [
        ([[1.0], [2.0]], "{kind: numerical}", "a numerical column must hold numbers, got List"),
        (["1", "2"], "{kind: numerical, buckets: 9}", "buckets are for categories"),
    ],
)
def test_a_column_of_the_wrong_kind_is_one_line(monkeypatch, capsys, cells, field, said):
    frame = pl.DataFrame({"bought": [0, 1] * 20, "x": cells * 20})
    frame.write_parquet("x.parquet")
    Path("x.yaml").write_text(f"files: x.parquet\nlabel: bought\nfields: {{x: {field}}}\n")
    code = run(monkeypatch, "fit", "--config", "table-fm", "--data.schema", "x.yaml", *QUIET)
    error = capsys.readouterr().err.strip()
    assert code == 2 and said in error and len(error.splitlines()) == 1


def test_an_output_of_unknown_ending_is_refused_before_scoring(monkeypatch, capsys):
    path = trained(monkeypatch, shop())
    words = ("--ckpt", path, "--input", "shop.csv", "--output", "out.xlsx")
    assert run(monkeypatch, "predict", *words) == 2
    assert "its ending must be one of .csv, .tsv, .parquet, .pq" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["model ClickTask", "data ClickData", "data LogData"])
def test_an_abstract_class_is_refused_with_those_that_can_be_built(monkeypatch, capsys, part):
    option, name = part.split()
    word = {"model": "AutoIntTask", "data": "InstEval"} | {option: name}
    words = [x for key, value in word.items() for x in (f"--{key}", value)]
    if name == "LogData":
        words += ["--data.path", "x"]
    assert run(monkeypatch, "fit", *words) == 2
    error = capsys.readouterr().err.strip()
    expected = {"model": "AutoIntTask", "data": "TableData"}[option]
    assert f"{option}: {name} is abstract" in error and expected in error
    assert len(error.splitlines()) == 1


def test_a_weight_counts_as_so_many_rows_in_the_loss():
    logits, labels = torch.randn(6), torch.tensor([0.0, 1, 1, 0, 1, 0])
    task = attn_recsys.tasks.BaselineTask()
    times = torch.tensor([1.0, 2, 0, 3, 1, 1])
    repeated = task.loss(*(x.repeat_interleave(times.long()) for x in (logits, labels)))
    torch.testing.assert_close(task.loss(logits, labels, times), repeated)


def test_the_next_day_begins_with_the_model_of_the_day_before(monkeypatch, capsys):
    first = trained(monkeypatch, shop(), flags=("--model.optimizer", "deferred_adam"))
    before = Scorer.load(first)
    day2 = shop().with_columns(
        user=pl.when(pl.int_range(pl.len()) % 5 == 0).then(9999).otherwise(pl.col("user"))
    )
    day2.write_csv("day2.csv")
    words = ("fit", "--ckpt_path", first, "--continue", "--data.files", "day2.csv")
    capsys.readouterr()
    assert run(monkeypatch, *words, "--model.lr", "0", "--model.rare_rate", "0", *QUIET) == 0
    assert "as a new version; new values: user 1" in capsys.readouterr().out
    second = first.parents[1] / "version_1/last.ckpt"
    after = Scorer.load(second)
    known = shop()
    assert np.allclose(after.score(known), before.score(known), atol=2e-3)
    states = [torch.load(path, weights_only=True) for path in (first, second)]
    assert states[1]["epoch"] == 0 and states[1]["global_step"] == states[0]["global_step"]
    steps = [x["optimizer_states"][0]["table"]["param_groups"][0]["steps"] for x in states]
    assert steps[1] == 2 * steps[0]
    table = after.vocabulary.tables["user"]
    assert set(before.vocabulary.tables["user"]["value"]) < set(table["value"])
    assert before.prepared.ranges == after.prepared.ranges
    assert run(monkeypatch, *words[:4], "--data.schema", "none.yaml") == 2


def test_days_follow_one_another(monkeypatch, capsys):
    frame = shop()
    for day in range(3):
        frame[day * 200 : (day + 1) * 200].write_parquet(f"day{day}.parquet")
    Path("shop.yaml").write_text(f"label: bought\nfields:\n{FIELDS}")
    files = "[day0.parquet,day1.parquet,day2.parquet]"
    words = ("days", "--schema", "shop.yaml", "--files", files, "--config", "table-lr")
    older = Path("days/warm/table-lr/version_0")  # of another run into the same folder
    older.mkdir(parents=True)
    (older / "last.ckpt").write_text("no checkpoint")
    assert run(monkeypatch, *words) == 0
    assert Path("days/anew/table-lr/version_1/best.ckpt").exists()
    table = pl.read_csv("days/days.csv")
    assert table["model"].to_list() == ["warm", "anew"] * 2
    assert table["tested on"].to_list() == ["day1.parquet"] * 2 + ["day2.parquet"] * 2
    assert table["logloss"].is_between(0.3, 1.2).all() and Path("days/days.png").exists()
    for wrong in ("[day0.parquet]", "[day0.parquet,day9.parquet]"):
        assert (
            run(monkeypatch, "days", "--schema", "shop.yaml", "--files", wrong, "--out", "x") == 2
        )
    assert not Path("x").exists()
