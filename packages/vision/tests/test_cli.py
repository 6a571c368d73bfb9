import json
import re

import pytest
import torch

from attn_vision.cli import main as command
from core_attn.cli import main


def run(*words):
    return main("attn_vision", list(words))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A run of the digits recipe, cut short."""
    root = tmp_path_factory.mktemp("runs")
    assert 0 == run(
        *("fit", "--config", "digits-deit-tiny", "--trainer.default_root_dir", str(root)),
        *("--model.depth", "2", "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "4"),
        *("--trainer.enable_progress_bar", "false"),
    )  # fmt: skip
    return root / "digits-deit-tiny" / "version_0" / "best.ckpt"


def test_fit_leaves_checkpoints_and_logs(checkpoint):
    names = {path.name for path in checkpoint.parent.iterdir()}
    assert {"best.ckpt", "last.ckpt", "metrics.csv", "config.yaml"} <= names


def test_test_and_report_show_accuracy_and_heads(checkpoint):
    assert run("test", "--ckpt", str(checkpoint)) == 0
    metrics = json.loads(checkpoint.with_suffix(".test.json").read_text())
    assert 0 <= metrics["test/accuracy"] <= 1
    assert run("report", "--ckpt", str(checkpoint)) == 0
    page = checkpoint.with_name("report.html").read_text()
    for title in ("Predictions", "Confusion", "Attention over images", "Reach of the heads"):
        assert title in page
    assert page.count("data:image/png;base64") >= 6
    assert not re.search(r"(src|href)=\"https?:", page)


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_export_agrees_with_the_model(checkpoint, kind, capsys):
    assert run("export", "--ckpt", str(checkpoint), "--format", kind) == 0
    assert "largest difference" in capsys.readouterr().out


def test_predict_gives_a_distribution_per_image(checkpoint):
    assert run("predict", "--ckpt", str(checkpoint)) == 0
    batches = torch.load(checkpoint.with_suffix(".predictions.pt"), weights_only=True)
    probabilities = torch.cat(batches)
    assert probabilities.shape == (360, 10)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(360))


BAD = {
    "recipe": ("fit --config digits-deit-tini", "nearest: digits-deit-tiny"),
    "variant": ("fit --config digits-deit-tiny --model.variant vgg", "no model is named"),
    "data folder": ("fit --config cifar10-deit-tiny --data.root /nowhere", "/nowhere"),
    "image size": ("fit --config digits-deit-tiny --model.patch_size 3", "patch_size 3"),
    "checkpoint": ("report --ckpt none.ckpt", "none.ckpt"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_ends_in_one_line_and_exit_code_2(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, message = BAD[case]
    assert run(*words.split()) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1


def test_a_checkpoint_of_another_model_is_explained(checkpoint, capsys):
    words = ["--model.depth", "3", "--ckpt_path", str(checkpoint)]
    assert run("test", "--config", "digits-deit-tiny", *words) == 2
    assert "does not fit this ImageClassification" in capsys.readouterr().err


def test_every_recipe_is_complete(capsys):
    from yaml import safe_load

    from attn_vision import data, tasks
    from core_attn.training.recipes import recipe_files

    for name, path in recipe_files("attn_vision").items():
        recipe = safe_load(path.read_text())
        assert hasattr(tasks, recipe["model"]["class_path"]), name
        assert hasattr(data, recipe["data"]["class_path"]), name


def test_the_command_lists_its_recipes(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["attn-vision", "recipes"])
    with pytest.raises(SystemExit) as ending:
        command()
    assert ending.value.code == 0 and "digits-deit-tiny" in capsys.readouterr().out
