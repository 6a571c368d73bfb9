import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core_attn.cli import main

FIT = ("fit", "--config", "points-tiny", "--trainer.enable_progress_bar", "false")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fot",), "no command 'fot'; there are fit, validate"),
        ((*FIT, "--trainer.max_epoch", "3"), "nearest: --trainer.max_epochs"),
        ((*FIT, "--trainer.max_epochs", "three"), "trainer.max_epochs: expected int, got three"),
        ((*FIT, "--model.wdth", "3"), "option 'wdth' is not accepted; nearest: width"),
        ((*FIT, "--model.heads", "3"), "heads = 3 does not divide width = 8"),
        ((*FIT, "--model.lr", "-1"), "Invalid learning rate: -1.0"),
        ((*FIT, "--model.dropout", "2"), "probability has to be between 0 and 1, but got 2.0"),
        ((*FIT, "--data.num_workers", "-1"), "num_workers option should be non-negative"),
        ((*FIT, "--checkpoint_every_n_steps", "-2"), "checkpoint_every_n_steps"),
        ((*FIT, "--model", "Clasifier"), "no class 'Clasifier'; nearest: Classifier"),
        ((*FIT, "--data.root", "nowhere"), "data folder nowhere does not exist"),
        ((*FIT, "--data.root", "empty"), "data folder empty holds nothing that matches '*'"),
        ((*FIT, "--data.size", "0"), "dataset is empty"),
        ((*FIT, "--ckpt_path", "last"), "no run of points-tiny under runs has a last.ckpt"),
        (("fit", "--config", "points-huge"), "no such recipe in attn_tiny; nearest: points-"),
        (("fit", "--config", "no/such.yaml"), "no such file"),
        (("fit",), "model"),
        (("test", "--ckpt", "nothing.ckpt"), "checkpoint nothing.ckpt: no such file"),
        (("report", "--ckpt=nothing.ckpt"), "checkpoint nothing.ckpt: no such file"),
        ((*FIT, "--trainer.strategy", "fsdp"), "requires a GPU accelerator"),
        (("export",), "ckpt"),
        (("export", "--ckpt", __file__, "--format", "caffe"), "caffe"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else None,
)
def test_what_the_user_got_wrong_is_said_in_one_line(tiny, tmp_path, words, said):
    (tmp_path / "empty").mkdir()
    code, _, err = tiny(*words)
    assert code == 2
    assert len(err) == 1, err
    assert err[0].startswith("attn-tiny: ")
    assert said in err[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainer: {callbacks: [{class_path: EarlyStoping}]}\n", "nearest: EarlyStopping"),
        ("model: [\nfoo: :\n", "bad.yaml"),
        (
            "model: Classifier\ndata: PointsData\ntrainer:\n  max_epoch: 3\n",
            "nearest: trainer.max_epochs",
        ),
        (
            "model:\n  class_path: Classifier\n  init_args: {depht: 3}\n",
            "option 'depht' is not accepted; there are width, heads, ",
        ),
        (b"model: \x80", "bad.yaml: not valid YAML: 'utf-8' codec can't decode"),
    ],
)
def test_a_bad_recipe_is_said_in_one_line(tiny, tmp_path, text, said):
    (tmp_path / "bad.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    code, _, err = tiny("fit", "--config", "bad.yaml")
    assert (code, len(err)) == (2, 1), err
    assert said in err[0]


def test_a_file_that_is_no_checkpoint_is_said_in_one_line(tiny, tmp_path):
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    foreign = {"state_dict": {}}
    torch.save(foreign, tmp_path / "foreign.ckpt")
    torch.save(foreign | {"config": {}, "recipe": "x"}, tmp_path / "other.ckpt")
    torch.save(foreign | {"config": torch.nn.Linear(1, 1)}, tmp_path / "code.ckpt")
    for name, said in (
        ("text", "cannot be read"),
        ("foreign", "not written by this program"),
        ("other", "not written by this program"),
        ("code", "cannot be read: it is damaged, or holds code"),
    ):
        for command in ("test", "fit", "report"):
            flag = "--ckpt" if command == "report" else "--ckpt_path"
            code, _, err = tiny(command, flag, f"{name}.ckpt")
            assert (code, len(err)) == (2, 1), err
            assert said in err[0]


def test_a_bug_keeps_its_traceback(monkeypatch, tmp_path):
    from attn_tiny.tasks import Classifier

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Classifier, "training_step", lambda self, batch, index: int("a"))
    with pytest.raises(ValueError, match="invalid literal"):
        main("attn_tiny", FIT)


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_a_traceback_can_be_asked_for(monkeypatch, tmp_path, how):
    monkeypatch.chdir(tmp_path)
    if how == "variable":
        monkeypatch.setenv("ATTN_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main("attn_tiny", ["test", "--ckpt", "x.ckpt", *(["--traceback"] if how == "flag" else [])])


def test_onnx_without_its_packages_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr("core_attn.training.export.find_spec", lambda name: None)
    assert main("attn_tiny", ["export", "--ckpt", __file__]) == 2
    said = capsys.readouterr().err.strip()
    assert "onnxruntime" in said and "[export]" in said and len(said.splitlines()) == 1


def test_a_reader_that_leaves_early_is_no_error():
    shown = subprocess.run(
        [sys.executable, "-m", "attn_tiny", "recipes"],
        stdout=_closed_pipe(), stderr=subprocess.PIPE, cwd=Path(__file__).parent, text=True,
    )  # fmt: skip
    assert shown.returncode == 0 and not shown.stderr


def _closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer
