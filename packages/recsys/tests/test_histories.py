"""Histories that are attended with the row's target, and vectors made elsewhere."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from attn_recsys import Layout, Scorer, cli, create
from attn_recsys.models.history import TargetAttention
from attn_recsys.pretrained import principal
from attn_recsys.schema import Schema
from core_attn.taps import record

QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.callbacks", "null")
ROWS = 400


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["attn-recsys", *map(str, words)])
    return cli.main()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def views():
    """A row is clicked if the item was seen before."""
    random = np.random.default_rng(0)
    seen = [[f"i{i}" for i in random.integers(0, 9, random.integers(0, 5))] for _ in range(ROWS)]
    item = [f"i{i}" for i in random.integers(0, 9, ROWS)]
    return pl.DataFrame(
        {
            "item": item,
            "seen": ["|".join(cells) for cells in seen],
            "clicked": [int(i in cells) for i, cells in zip(item, seen, strict=True)],
        }
    )


def fitted(monkeypatch, frame, item="categorical", model="autoint", flags=()):
    frame.write_csv("views.csv")
    Path("views.yaml").write_text(
        "files: views.csv\nlabel: clicked\ngroup: item\nfields:\n"
        "  seen: {kind: sequence, target: item, max_values: 3, keep: last}\n"
        f"  item: {item}\n"
    )
    words = ("fit", "--config", f"table-{model}", "--data.schema", "views.yaml", *QUIET)
    assert run(monkeypatch, *words, "--trainer.max_epochs", 1, *flags) == 0
    return sorted(Path(f"runs/table-{model}").glob("*/last.ckpt"))[-1]


def test_target_attention_is_a_mean_weighted_by_the_target_over_present_values():
    torch.manual_seed(0)
    read, target, history = TargetAttention(3), torch.randn(2, 3), torch.randn(2, 4, 3)
    present = torch.tensor([[True, False, True, False], [False] * 4])
    with record(read, "pattern") as seen:
        out = read(target, history, present)
    scores = (read.key(history) @ read.query(target)[:, :, None])[:, :, 0] / 3**0.5
    weights = scores[0, [0, 2]].softmax(0)
    torch.testing.assert_close(out[0], weights @ history[0, [0, 2]])
    assert out[1].eq(0).all()
    [pattern] = seen.values()
    torch.testing.assert_close(pattern[0, 0, 0, [0, 2]], weights)


@pytest.mark.parametrize("name", ["autoint", "autoint_plus", "fm", "deepfm", "dcnv2", "finalmlp"])
def test_every_model_reads_a_history_by_its_target(name):
    torch.manual_seed(0)
    layout = Layout(("item", "seen"), (1, 3), (1, 1), (9, 9), 10, attends=(("seen", "item"),))
    model = create(name, layout).eval()
    tables = {name for name, _ in model.named_parameters() if "embedding" in name}
    assert {"embedding.readers.1.query.weight", "embedding.readers.1.key.weight"} <= tables
    index = torch.tensor([[4, 2, 3, 0]])
    with torch.no_grad():
        model.embedding.weight.normal_()
        one = model.embedding(index, torch.tensor([[1.0, 1, 1, 0]]))[0, 1]
        other = model.embedding(index.clone().index_fill_(1, torch.tensor([0]), 7),
                                torch.tensor([[1.0, 1, 1, 0]]))[0, 1]  # fmt: skip
        assert not torch.allclose(one, other)
        assert torch.isfinite(model(index, torch.ones(1, 4))).all()


@pytest.mark.parametrize("item", ["categorical", "{buckets: 50, missing: learned}"])
def test_a_history_has_its_targets_rows_from_file_to_score(monkeypatch, item):
    frame = views()
    path = fitted(monkeypatch, frame, item)
    scorer = Scorer.load(path)
    coded = scorer.coded(frame)
    known = dict(zip(frame["item"], coded["item"], strict=True))
    kept = [cell.split("|")[-3:] if cell else None for cell in frame["seen"]]
    expected = [None if cell is None else [known[i] for i in cell] for cell in kept]
    assert coded["seen"].to_list() == expected
    layout = scorer.prepared.layout
    assert layout.attends == (("seen", "item"),) and layout.firsts[0] == layout.firsts[1]
    lists = frame.with_columns(pl.col("seen").replace("", None).str.split("|"))
    assert np.array_equal(scorer.score(lists), scorer.score(frame))
    scorer.save_pretrained("kept")
    assert np.array_equal(Scorer.from_pretrained("kept").score(frame), scorer.score(frame))


def test_a_history_is_reported_exported_and_goes_on_the_next_day(monkeypatch):
    path = fitted(monkeypatch, views())
    assert run(monkeypatch, "report", "--ckpt", path) == 0
    assert (path.parent / "report/attention-heads.png").is_file()
    assert run(monkeypatch, "export", "--ckpt", path, "--format", "torch") == 0
    grown = views().with_columns(
        item=pl.when(pl.int_range(pl.len()) % 4 == 0).then(pl.lit("new")).otherwise("item")
    )
    grown.write_csv("tuesday.csv")
    words = ("fit", "--ckpt_path", path, "--continue", "--data.files", "[tuesday.csv]", *QUIET)
    assert run(monkeypatch, *words, "--model.lr", "0", "--model.rare_rate", "0") == 0
    second = Scorer.load(path.parents[1] / "version_1/last.ckpt")
    assert np.allclose(second.score(views()), Scorer.load(path).score(views()), atol=2e-3)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"seen": {"kind": "sequence"}}, "a sequence, and nothing else, needs target"),
        ({"seen": {"kind": "multi", "target": "item"}}, "a sequence, and nothing else"),
        ({"seen": {"kind": "sequence", "target": "other"}}, "target 'other' is no categorical"),
        (
            {"seen": {"kind": "sequence", "target": "item", "buckets": 9}},
            "buckets and min_count are the target's",
        ),
    ],
)
def test_a_history_without_a_fitting_target_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Schema.parse({"label": "y", "fields": {"item": "categorical"} | fields})


def test_a_fields_rows_start_from_vectors_made_elsewhere(monkeypatch, capsys):
    frame = views()
    vectors = {f"i{i}": [float(i)] * 8 + [1.0] * 8 for i in range(20)}
    pl.DataFrame({"id": list(vectors), "vector": list(vectors.values())}).write_parquet("v.parquet")
    still = ("--model.lr", "0", "--model.pretrained", '{"item": "v.parquet"}')
    path = fitted(monkeypatch, frame, flags=still)
    assert "field item: 9 of 9 values from v.parquet" in capsys.readouterr().err
    scorer = Scorer.load(path)
    table = scorer.vocabulary.tables["item"]
    rows = scorer.model.embedding.weight[torch.from_numpy(table["id"].to_numpy().copy()).long()]
    assert torch.equal(rows, torch.tensor([vectors[value] for value in table["value"]]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"id": ["i1"], "vector": [[1.0]]},
            "vectors have 1 numbers, fewer than the",
        ),
        ({"id": ["i1"], "v": [[1.0]]}, "needs the columns id and vector, it has id, v"),
        ({"id": ["x"], "vector": [[1.0] * 16]}, "none of its ids is a value of field item"),
        ({"id": ["i1", "i2"], "vector": [[1.0], [2.0, 3.0]]}, "vectors must all have as many"),
    ],
)
def test_a_file_that_holds_no_fitting_vectors_is_one_line(monkeypatch, capsys, content, said):
    pl.DataFrame(content).write_parquet("v.parquet")
    views().write_csv("views.csv")
    Path("views.yaml").write_text("files: views.csv\nlabel: clicked\nfields: {item: categorical}\n")
    words = ("fit", "--config", "table-autoint", "--data.schema", "views.yaml", *QUIET)
    assert run(monkeypatch, *words, "--model.pretrained", '{"item": "v.parquet"}') == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1]


def test_longer_vectors_keep_their_distances_as_far_as_components_hold_them():
    torch.manual_seed(0)
    flat = torch.randn(30, 4) @ torch.randn(4, 12)  # of rank 4
    part, share = principal(flat, 4)
    assert share == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(torch.cdist(part, part), torch.cdist(flat, flat), atol=0.02, rtol=0)


def test_test_measures_within_groups_and_by_the_values_of_a_column(monkeypatch, capsys):
    path = fitted(monkeypatch, views())
    words = ("test", "--ckpt", path, "--trainer.enable_progress_bar", "false")
    assert run(monkeypatch, *words) == 0
    found = json.loads(path.with_name("last.test.json").read_text())
    names = ("grouped_auc", "grouped_ece", "ndcg@10", "mrr@5", "pr_auc")
    assert {f"test/{name}" for name in names} <= set(found)
    capsys.readouterr()
    words = ("test", "--ckpt", path, "--input", "views.csv", "--slice", "item", "--at", "[3]")
    assert run(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "ndcg@3" in said and "grouped_ece" in said
    assert all(f"i{i} " in said for i in range(9)) and "calibration_ratio" in said
