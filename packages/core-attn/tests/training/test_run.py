"""What is done with a trained checkpoint; one short run serves all tests."""

import base64
import csv
import json
import os
from html.parser import HTMLParser

import pytest
import torch
import yaml

from core_attn.cli import main
from core_attn.training import opened

FIT = ("fit", "--config", "points-tiny", "--trainer.enable_progress_bar", "false")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert main("attn_tiny", [*FIT, "--trainer.max_epochs", "2"]) == 0
    finally:
        os.chdir(before)
    return folder / "runs/points-tiny/version_0"


def test_a_run_leaves_config_logs_and_checkpoints(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "metrics.csv", "last.ckpt", "best.ckpt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any(name.endswith(".part") for name in names)
    with (trained / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/samples_per_second"]]
    assert len(rows) == 2
    assert all(float(row["train/samples_per_second"]) > 0 for row in rows)
    assert all(float(row["train/peak_memory_mib"]) > 50 for row in rows)


def test_the_best_checkpoint_follows_the_monitored_metric(trained):
    with (trained / "metrics.csv").open() as file:
        scores = [float(row["val/accuracy"]) for row in csv.DictReader(file) if row["val/accuracy"]]
    best = torch.load(trained / "best.ckpt", weights_only=True)
    assert best["epoch"] == scores.index(max(scores))


def test_a_second_run_gets_a_second_folder(tiny, tmp_path):
    (tmp_path / "runs/points-tiny/version_4").mkdir(parents=True)
    code, out, _ = tiny(*FIT, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1")
    assert code == 0
    assert "runs/points-tiny/version_5/best.ckpt" in out[-1]


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_checkpoint_is_all_that_is_needed(tiny, trained, command):
    code, *_ = tiny(command, "--ckpt", str(trained / "best.ckpt"))
    assert code == 0
    metrics = json.loads((trained / f"best.{command}.json").read_text())
    prefix = {"validate": "val", "test": "test"}[command]
    assert 0 <= metrics[f"{prefix}/accuracy"] <= 1


def test_predictions_are_written_beside_the_checkpoint(tiny, trained):
    code, *_ = tiny("predict", "--ckpt", str(trained / "best.ckpt"))
    assert code == 0
    predictions = torch.cat(torch.load(trained / "best.predictions.pt", weights_only=True))
    assert predictions.shape == (32, 2)
    _, task, data, _ = opened(trained / "best.ckpt", "test")
    x, _ = next(iter(data.test_dataloader()))
    assert torch.allclose(predictions[:8], task.model(x).softmax(-1))


def test_a_checkpoint_of_another_model_is_explained(tiny, trained):
    code, _, err = tiny("test", "--config", "points-tiny", "--model.width", "16",
                        "--ckpt_path", str(trained / "last.ckpt"))  # fmt: skip
    assert (code, len(err)) == (2, 1)
    assert "holds a Classifier (recipe points-tiny) that does not fit this Classifier" in err[0]
    assert "of another shape (model.embed.weight (8, 3) instead of (16, 3)" in err[0]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        assert tag not in ("script", "link", "iframe")
        if tag == "img":
            self.images.append(values["src"])
        assert all("://" not in (value or "") for value in values.values())
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_a_report_is_one_file_with_pictures_inside(tiny, trained):
    code, _, err = tiny("report", "--ckpt", str(trained / "best.ckpt"))
    assert (code, err) == (0, [])
    text = (trained / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    prefix = "data:image/png;base64,"
    pictures = [base64.b64decode(source.removeprefix(prefix)) for source in page.images]
    assert len(pictures) == 3  # loss, accuracy, attention
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert "url(" not in text and "@import" not in text
    folder = trained / "report"
    assert {path.name for path in folder.iterdir()} == {
        "attention.png", "attention.csv", "samples.csv", "curve-loss.png", "curve-loss.csv",
        "curve-accuracy.png", "curve-accuracy.csv", "sound.wav",
    }  # fmt: skip
    assert (folder / "sound.wav").read_bytes() == b"RIFF and so on"
    sound = base64.b64encode(b"RIFF and so on").decode()
    assert f'<audio controls src="data:audio/wav;base64,{sound}"></audio>' in text
    assert (folder / "attention.png").read_bytes() in pictures
    assert (folder / "samples.csv").read_text().startswith("label,count")
    words = " ".join(page.texts)
    assert "a <b> is escaped" in words
    assert "val/accuracy" in words
    assert "train/samples_per_second" in words
    assert "class_path" in words


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_an_export_agrees_with_the_model_at_any_batch_size(tiny, trained, tmp_path, format):
    target = tmp_path / "new" / "model"
    words = ("export", "--ckpt", str(trained / "best.ckpt"), "--out", str(target))
    code, out, _ = tiny(*words, "--format", format)
    assert code == 0, out
    assert target.stat().st_size > 1000
    assert "largest difference" in out[-1]
    if format == "torch":
        code, out, _ = tiny(*words, "--format", format, "--tolerance", "-1")
        assert code == 1
        assert "beyond the tolerance" in out[-1]


def test_an_export_for_what_the_task_has_not_is_refused_in_one_line(tiny, trained):
    words = ("export", "--ckpt", str(trained / "best.ckpt"), "--inputs", '{"size": 3}')
    code, _, err = tiny(*words, "--format", "torch")
    assert code == 2 and "inputs has 'size'; the task has no choice" in err[-1]


def test_the_configuration_can_be_printed_and_used_again(tiny):
    code, out, _ = tiny(*FIT, "--model.lr", "0.5", "--print_config")
    assert code == 0
    config = yaml.safe_load("\n".join(out))
    assert config["model"]["init_args"]["lr"] == 0.5
    assert config["trainer"]["max_epochs"] == 4


def test_commands_of_the_domain_get_flags_from_their_signature(tiny):
    def bench(repeats: int = 3):
        """Compare."""
        print("repeats", repeats)

    assert main("attn_tiny", ["bench", "--repeats", "4"], commands={"bench": bench}) == 0


@pytest.mark.parametrize("command", ["fit", "test"])
def test_the_network_is_compiled_when_asked(tiny, trained, monkeypatch, command):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self)))
    words = {
        "fit": (*FIT, "--trainer.fast_dev_run", "true"),
        "test": ("test", "--ckpt", str(trained / "last.ckpt")),
    }
    code, *_ = tiny(*words[command], "--compile")
    assert code == 0
    assert {kind.__name__ for kind in compiled} == {"Net"}


def test_a_run_in_bfloat16_is_measured_in_bfloat16(tiny):
    code, out, _ = tiny(*FIT, "--trainer.precision", "bf16-mixed", "--trainer.max_epochs", "1")
    assert code == 0
    path = out[-1].split()[-1]
    assert torch.load(path, weights_only=True)["config"]["trainer"]["precision"] == "bf16-mixed"
    assert tiny("test", "--ckpt", path)[0] == 0


def test_a_run_starts_from_a_file_of_weights_that_is_not_needed_again(tiny, trained, tmp_path):
    (tmp_path / "start.ckpt").write_bytes((trained / "best.ckpt").read_bytes())
    flags = ("--model.weights", "start.ckpt", "--model.lr", "0", "--trainer.max_epochs", "1")
    code, out, _ = tiny(*FIT, *flags)
    assert code == 0
    assert out[0] == "start.ckpt[state_dict]: 6 of 6 weights taken over"
    (tmp_path / "start.ckpt").unlink()
    last = tmp_path / "runs/points-tiny/version_0/last.ckpt"
    states = [
        torch.load(path, weights_only=True)["state_dict"] for path in (trained / "best.ckpt", last)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert tiny("test", "--ckpt", str(last))[0] == 0
    code, out, _ = tiny("fit", "--ckpt_path", str(last), "--trainer.max_epochs", "2")
    assert code == 0 and "taken over" not in "".join(out)
    code, _, err = tiny(*FIT, *flags)
    assert (code, err) == (2, ["attn-tiny: weights start.ckpt: no such file"])
