import csv
import json
import re
from inspect import signature
from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from yaml import safe_load

from attn_vision import VisionTransformer, data, tasks
from attn_vision.cli import COMMANDS
from attn_vision.cli import main as command
from core_attn.cli import main
from core_attn.training.recipes import recipe_files


def run(*words):
    return main("attn_vision", list(words), commands=COMMANDS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A run of the digits recipe, cut short."""
    root = tmp_path_factory.mktemp("runs")
    assert 0 == run(
        *("fit", "--config", "digits-deit-tiny", "--trainer.default_root_dir", str(root)),
        *("--model.settings.depth", "2", "--trainer.max_epochs", "2"),
        *("--trainer.limit_train_batches", "4"),
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
    size = ("--inputs", '{"image_size": [12, 8]}') if kind == "onnx" else ()
    assert run("export", "--ckpt", str(checkpoint), "--format", kind, *size) == 0
    assert "largest difference" in capsys.readouterr().out
    if kind == "onnx":
        session = onnxruntime.InferenceSession(checkpoint.with_suffix(".onnx"))
        assert session.get_inputs()[0].shape[1:] == [1, 12, 8]
        assert [output.name for output in session.get_outputs()] == ["scores"]


def test_paths_are_ranked_on_the_runs_images_and_on_a_folder(checkpoint, tmp_path, capsys):
    words = ("paths", "--ckpt", str(checkpoint), "--output")
    assert run(*words, str(tmp_path / "a"), "--most", "1") == 0
    said = capsys.readouterr().out
    assert "chosen on 180 images" in said and "judged on 180 other images" in said
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {"embed", "attn.1", "ffn.1", "attn.2", "ffn.2"}
    losses = [float(row["loss without"]) for row in rows]
    assert losses == sorted(losses) and (tmp_path / "a.png").stat().st_size > 1000
    for i in range(6):
        folder = tmp_path / "labelled" / str(i % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 40 * i).save(folder / f"{i}.png")
    assert run(*words, str(tmp_path / "b"), "--input", str(tmp_path / "labelled")) == 0
    assert "chosen on 3 images" in capsys.readouterr().out
    (tmp_path / "labelled" / "1").rename(tmp_path / "labelled" / "one")
    assert run(*words, str(tmp_path / "c"), "--input", str(tmp_path / "labelled")) == 2
    assert "does not know: ['one']" in capsys.readouterr().err


def test_predict_writes_a_table_and_counts_what_cannot_be_read(checkpoint, tmp_path, capsys):
    (tmp_path / "new" / "inner").mkdir(parents=True)
    for name in ("b.png", "inner/a.jpg"):
        Image.new("RGB", (9, 12), (200, 10, 10)).save(tmp_path / "new" / name)
    (tmp_path / "new" / "cut.jpg").write_bytes((tmp_path / "new/inner/a.jpg").read_bytes()[:300])
    (tmp_path / "new" / ".hidden.jpg").write_bytes(b"xx")
    table = tmp_path / "table.csv"
    words = ["--input", str(tmp_path / "new"), "--output", str(table)]
    assert run("predict", "--ckpt", str(checkpoint), *words) == 0
    said = capsys.readouterr().out
    assert "1 of 3 images" in said and "cut.jpg" in said and "2 pictures, 1 could not be" in said
    rows = list(csv.DictReader(table.open()))
    assert [Path(row["file"]).name for row in rows] == ["b.png", "a.jpg"]
    for row in rows:
        shares = [float(row[f"p({digit})"]) for digit in range(10)]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert row["class"] == str(shares.index(max(shares)))
    words[1] = str(tmp_path / "new" / "cut.jpg")
    assert run("predict", "--ckpt", str(checkpoint), *words) == 2
    assert run("predict", "--ckpt", str(checkpoint), "--input", "/nowhere.png") == 2
    assert "input /nowhere.png does not exist" in capsys.readouterr().err


def test_a_run_starts_from_weights_of_another_size_and_says_so(checkpoint, tmp_path, capsys):
    official = timm.models.VisionTransformer(
        img_size=12, patch_size=2, in_chans=1, num_classes=7, embed_dim=192, depth=1, num_heads=3
    )
    file = tmp_path / "deit.pth"
    torch.save({"model": {f"module.{k}": x for k, x in official.state_dict().items()}}, file)
    words = [
        *("fit", "--config", "digits-deit-tiny", "--model.settings.depth", "1"),
        *("--model.weights", str(file), "--trainer.default_root_dir", str(tmp_path)),
        *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"),
        *("--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false"),
    ]
    assert run(*words) == 0
    said = capsys.readouterr().out
    assert "positions resized from 6x6 to 4x4" in said
    assert "head.weight (7, 192) instead of (10, 192)" in said
    file.unlink()  # the run's own checkpoints do not need it again
    last = tmp_path / "digits-deit-tiny" / "version_0" / "last.ckpt"
    assert run("test", "--ckpt", str(last), "--trainer.enable_progress_bar", "false") == 0
    assert run("fit", "--ckpt_path", str(last), "--trainer.max_epochs", "2") == 0


def test_official_checkpoints_are_converted_and_back(tmp_path, capsys):
    official = timm.models.VisionTransformer(
        img_size=32, patch_size=16, num_classes=6, embed_dim=192, depth=2, num_heads=3
    ).eval()
    file, folder, back = tmp_path / "vit.pth", tmp_path / "ours", tmp_path / "back.safetensors"
    torch.save({"state_dict": official.state_dict()}, file)
    words = ["--variant", "deit_tiny", "--settings", '{"depth": 2, "image_size": 32}']
    assert run("convert", "--input", str(file), "--output", str(folder), *words) == 0
    images = torch.randn(1, 3, 32, 32)
    ours = VisionTransformer.from_pretrained(folder)
    torch.testing.assert_close(ours(images), official(images), rtol=1e-4, atol=1e-5)
    words += ["--back", "true"]
    assert run("convert", "--input", str(folder), "--output", str(back), *words) == 0
    for name, x in load_file(back).items():
        assert x.equal(official.state_dict()[name]), name
    words = ["--variant", "convit_tiny", "--settings", '{"image_size": 32}']
    assert run("convert", "--input", str(file), "--output", str(folder), *words) == 2
    assert "not the weights of this ConViT" in capsys.readouterr().err


BAD = {
    "recipe": ("fit --config digits-deit-tini", "nearest: digits-deit-tiny"),
    "variant": ("fit --config digits-deit-tiny --model.variant vgg", "no model is named"),
    "data folder": ("fit --config cifar10-deit-tiny --data.root /nowhere", "/nowhere"),
    "image size": ("fit --config digits-deit-tiny --model.settings.patch_size 3", "patch_size 3"),
    "setting": ("fit --config digits-deit-tiny --model.settings.width 3", "no setting 'width'"),
    "size": ("fit --config digits-deit-tiny --model.settings.image_size 9", "comes from the data"),
    "classes": (
        "fit --config digits-deit-tiny --model.classes 3",
        "classes is 3, the data have 10",
    ),
    "one class": ("fit --config digits-deit-tiny --model.classes 1", "classes must be at least 2"),
    "rate": ("fit --config digits-deit-tiny --model.lr -1", "lr must be positive, got -1"),
    "weights": ("fit --config digits-deit-tiny --model.weights none.pth", "none.pth"),
    "keep rate": ("fit --config digits-evit --model.keep_rate 0", "keep_rate must be in (0, 1]"),
    "no teacher": ("fit --config digits-sparsifiner --model.dense none.pth", "none.pth"),
    "head": ("fit --config digits-dhvt --model.settings.dim 30", "dim 30 is not divisible"),
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
    words = ["--model.settings.depth", "3", "--ckpt_path", str(checkpoint)]
    assert run("test", "--config", "digits-deit-tiny", *words) == 2
    assert "does not fit this ImageClassification" in capsys.readouterr().err


RECIPES = recipe_files("attn_vision")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_a_task_a_data_set_and_a_model_that_can_be_built(name):
    recipe = safe_load(RECIPES[name].read_text())
    options = recipe["model"]["init_args"]
    task = getattr(tasks, recipe["model"]["class_path"])(**options)
    source = getattr(data, recipe["data"]["class_path"])
    size = recipe["data"]["init_args"].get("image_size")
    size = size or signature(source).parameters["image_size"].default
    with torch.device("meta"):
        config = task.config(classes=10, channels=source.channels, image_size=size)
        assert sum(p.numel() for p in config.build().parameters()) > 1000


DIGITS = [name for name in RECIPES if name.startswith("digits-")]


@pytest.mark.parametrize("name", [n for n in DIGITS if n != "digits-deit-tiny"])
def test_the_digits_recipes_train_and_report(name, tmp_path):
    short = [
        *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"),
        *("--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false"),
        *("--data.batch_size", "16", "--trainer.default_root_dir", str(tmp_path)),
        *("--trainer.enable_model_summary", "false"),
    ]
    if name == "digits-sparsifiner":
        assert run("fit", "--config", "digits-deit-small", *short) == 0
        dense = tmp_path / "digits-deit-small" / "version_0" / "last.ckpt"
        short += ["--model.dense", str(dense), "--model.predictor_epochs", "1",
                  "--trainer.max_epochs", "2"]  # fmt: skip
    assert run("fit", "--config", name, *short) == 0
    last = tmp_path / name / "version_0" / "last.ckpt"
    assert run("report", "--ckpt", str(last)) == 0
    assert "Predictions" in last.with_name("report.html").read_text()


def test_the_command_lists_its_recipes(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["attn-vision", "recipes"])
    with pytest.raises(SystemExit) as ending:
        command()
    assert ending.value.code == 0 and "digits-deit-tiny" in capsys.readouterr().out
