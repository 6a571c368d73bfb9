"""The README's tutorial and the demo recipes, through the command line."""

import csv
import json
import shlex
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from attn_recsys import Scorer, cli
from attn_recsys.tasks import ClickTask
from core_attn.training import opened

README = Path(__file__).parents[1] / "README.md"


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["attn-recsys", *map(str, words)])
    return cli.main()


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A shop's log as in the README, with the README's YAML."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    size = 3000
    user, item = random.integers(0, 40, size), random.integers(0, 25, size)
    frame = pl.DataFrame(
        {
            "bought": ((user + item) % 2 == 0) & (random.random(size) < 0.9),
            "user": [f"u{i}" for i in user],
            "item": [f"i{i}" for i in item],
            "price": [None if i % 9 == 0 else float(i % 50) for i in range(size)],
            "tags": ["|".join("abc"[: i % 4]) for i in range(size)],
        }
    ).with_columns(pl.col("bought").cast(pl.Int8))
    frame.write_csv("shop.csv")
    text = README.read_text().split("```yaml\n")[1].split("```")[0]
    assert len(text.strip().splitlines()) <= 10
    Path("shop.yaml").write_text(text)
    return frame


@pytest.fixture
def trained(table, monkeypatch):
    assert (
        run(
            monkeypatch, "fit", "--config", "table-autoint", "--data.schema", "shop.yaml",
            "--trainer.max_epochs", 2, "--data.batch_size", 128,
            "--model.config.block_widths", "[8, 8]", "--trainer.enable_progress_bar", "false",
        )
        == 0
    )  # fmt: skip
    return Path("runs/table-autoint/version_0/best.ckpt")


def test_a_table_of_ones_own_trains_scores_exports_and_reports(trained, table, monkeypatch):
    assert (
        run(monkeypatch, "test", "--ckpt", trained, "--trainer.enable_progress_bar", "false") == 0
    )
    found = json.loads((trained.parent / "best.test.json").read_text())
    assert {"test/auc", "test/logloss", "test/ece"} <= set(found)

    assert run(monkeypatch, "report", "--ckpt", trained) == 0
    folder = trained.parent / "report"
    names = {path.stem for path in folder.glob("*.png") if not path.name.startswith("curve-")}
    assert names == {
        "calibration", "attention-global", "attention-heads", "attention-rows", "interactions",
    }  # fmt: skip
    assert all((folder / f"{name}.csv").is_file() for name in names)
    with (folder / "attention-heads.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 2 * 2 * 4 * 4
    first = [float(cell["weight"]) for cell in cells[:4]]
    assert sum(first) == pytest.approx(1, abs=1e-5)
    assert {cell["reads"] for cell in cells} == {"user", "item", "price", "tags"}

    unseen = pl.DataFrame({"user": ["new"], "item": ["i1"], "price": [None], "tags": [""]})
    pl.concat([table.drop("bought"), unseen], how="vertical_relaxed").write_parquet("more.parquet")
    words = ("--ckpt", trained, "--input", "more.parquet", "--output", "out.parquet")
    assert run(monkeypatch, "predict", *words) == 0
    scored = pl.read_parquet("out.parquet")
    assert len(scored) == len(table) + 1 and scored["probability"].is_between(0, 1).all()

    assert run(monkeypatch, "export", "--ckpt", trained) == 0
    tables = trained.parent / "best-tables"
    assert (tables / "schema.json").is_file() and (tables / "vocabulary/user.parquet").is_file()
    import onnxruntime

    session = onnxruntime.InferenceSession(trained.with_suffix(".onnx"))
    _, task, data, _ = opened(trained, "test")
    batch = next(iter(data.test_dataloader()))
    names = [one.name for one in session.get_inputs()]
    feed = dict(zip(names, (batch["index"].numpy(), batch["value"].numpy()), strict=True))
    with torch.no_grad():
        expected = task.predict_step(batch)
    torch.testing.assert_close(
        torch.from_numpy(session.run(None, feed)[0]), expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.onnx.*")
def test_the_twenty_lines_of_the_readme(table, tmp_path, monkeypatch):
    """Exactly they: on one machine, on another that has the checkpoint alone, on the next day."""
    section = README.read_text().split("## Your own table, in twenty lines")[1].split("\n## ")[0]
    lines = [x for x in section.split("```")[1::2]]
    count = sum(len([y for y in x.splitlines()[1:] if y.strip()]) for x in lines)
    assert count <= 20
    stick, other = tmp_path / "stick", tmp_path / "other"
    stick.mkdir()
    other.mkdir()
    table.drop("bought").write_parquet(other / "more.parquet")
    table.write_csv(other / "labelled.csv")
    tuesday = table.with_columns(user=pl.concat_str("user", pl.lit("b")))
    tuesday.write_parquet(other / "tuesday.parquet")
    for block in lines[1:]:
        kind, _, text = block.partition("\n")
        if kind == "python":
            exec(compile(text, "README.md", "exec"), scope := {})
            assert scope["scorer"].score(table).shape == (len(table),)
            continue
        for line in text.strip().splitlines():
            name, *words = shlex.split(line)
            if name == "cp":
                shutil.copy(words[0], stick / "shop.ckpt")
                shutil.copy(stick / "shop.ckpt", other)
                for path in (tmp_path / "runs", tmp_path / "cache"):
                    shutil.rmtree(path)
                for file in ("shop.csv", "shop.yaml"):
                    (tmp_path / file).unlink()
                monkeypatch.chdir(other)
            else:
                assert run(monkeypatch, *words) == 0, line
    assert pl.read_csv("clicks.csv").columns == ["row", "user", "item", "probability"]
    [second] = Path("runs/table-autoint").glob("version_*/best.ckpt")
    assert "u3b" in set(Scorer.load(second).vocabulary.tables["user"]["value"])


def test_a_calibration_is_kept_in_the_checkpoint_until_training_goes_on(trained, monkeypatch):
    def scores(ckpt):
        words = ("--ckpt", ckpt, "--input", "shop.csv", "--output", "scores.parquet")
        assert run(monkeypatch, "predict", *words) == 0
        return pl.read_parquet("scores.parquet")["probability"].to_numpy()

    before = scores(trained)
    words = ("--ckpt", trained, "--method", "isotonic", "--out", "calibrated.ckpt")
    assert run(monkeypatch, "calibrate", *words) == 0
    task = opened("calibrated.ckpt").task
    expected = task.probability.calibrator(torch.tensor(before).logit()).numpy()
    after = scores("calibrated.ckpt")
    np.testing.assert_allclose(after, expected, atol=1e-4)
    assert np.abs(after - before).max() > 0.01 and np.array_equal(scores(trained), before)
    assert run(monkeypatch, "export", "--ckpt", "calibrated.ckpt") == 0

    assert run(monkeypatch, "report", "--ckpt", "calibrated.ckpt") == 0
    with Path("report/calibration.csv").open() as file:
        names = [row["probabilities"] for row in csv.DictReader(file)]
    assert names == ["as trained"] * 10 + ["isotonic"] * 10

    words = ("--ckpt", "calibrated.ckpt", "--trainer.max_epochs", 3)
    assert run(monkeypatch, "fit", *words, "--trainer.enable_progress_bar", "false") == 0
    task = opened(sorted(Path("runs/table-autoint").glob("*/last.ckpt"))[-1]).task
    assert task.probability.calibrator is None
    words = ("--ckpt", "calibrated.ckpt", "--method", "none")
    assert run(monkeypatch, "calibrate", *words) == 0
    assert np.array_equal(scores("calibrated.ckpt"), before)


def fit(monkeypatch, *words):
    common = (
        "--data.batch_size", 256, "--model.config.block_widths", "[8]",
        "--trainer.enable_progress_bar", "false", "--trainer.callbacks", "null",
    )  # fmt: skip
    return run(
        monkeypatch, "fit", "--config", "table-autoint", "--data.schema", "shop.yaml",
        *common, *words,
    )  # fmt: skip


def last_weights(version):
    path = f"runs/table-autoint/version_{version}/last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_run_resumes_to_the_same_numbers(table, monkeypatch):
    assert fit(monkeypatch, "--trainer.max_epochs", 2) == 0
    assert fit(monkeypatch, "--trainer.max_epochs", 1) == 0
    path = "runs/table-autoint/version_1/last.ckpt"
    assert run(monkeypatch, "fit", "--ckpt", path, "--trainer.max_epochs", 2) == 0
    for name, x in last_weights(0).items():
        assert x.equal(last_weights(1)[name]), name


@pytest.mark.parametrize("optimizer", ["deferred_adam", "row_adagrad"])
def test_a_run_stopped_anywhere_ends_with_the_weights_of_one_that_was_not(
    table, monkeypatch, optimizer
):
    words = ("--trainer.max_epochs", 2, "--model.optimizer", optimizer)
    assert fit(monkeypatch, *words) == 0
    training_step = ClickTask.training_step

    def interrupted(task, batch, number):
        if task.global_step == 14:  # in the middle of the second epoch
            signal.raise_signal(signal.SIGINT)
        return training_step(task, batch, number)

    with monkeypatch.context() as patch:
        patch.setattr(ClickTask, "training_step", interrupted)
        assert fit(patch, *words) == 130
    path = "runs/table-autoint/version_1/last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 15
    assert run(monkeypatch, "fit", "--ckpt", path) == 0
    for name, x in last_weights(0).items():
        assert x.equal(last_weights(1)[name]), name


def test_mistakes_end_in_one_line(table, monkeypatch, capsys):
    Path("bad.yaml").write_text("files: shop.csv\nlabel: bought\nfields: {colour: categorical}\n")
    code = run(monkeypatch, "fit", "--config", "table-autoint", "--data.schema", "bad.yaml")
    assert code == 2
    assert "column colour missing; it has bought, user" in capsys.readouterr().err
    assert run(monkeypatch, "fit", "--config", "table-autoint", "--data.schema", "no.yaml") == 2
    assert "schema file no.yaml does not exist" in capsys.readouterr().err
