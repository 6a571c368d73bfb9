"""`analyze`, which every package has, on a run of the tiny one."""

import json
import os
import sys

import polars as pl
import pytest
import torch

from core_attn.cli import main
from core_attn.training import analyze, opened
from core_attn.training.trials import Trials


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    """The best checkpoint of a run of one epoch."""
    folder = tmp_path_factory.mktemp("analyzed")
    before = os.getcwd()
    os.chdir(folder)
    try:
        words = ["fit", "--config", "points-tiny", "--trainer.enable_progress_bar", "false"]
        assert main("attn_tiny", [*words, "--trainer.max_epochs", "1"]) == 0
    finally:
        os.chdir(before)
    return folder / "runs/points-tiny/version_0/best.ckpt"


def test_one_command_writes_page_tables_and_facts(tiny, ckpt, tmp_path):
    code, out, error = tiny("analyze", str(ckpt), "--out", str(tmp_path / "out"), "--batches", "2")
    assert code == 0 and out[-1].endswith("index.html")
    assert "at most" in error[0]  # the cost is said beforehand
    heads = pl.read_csv(tmp_path / "out/heads.csv")
    assert heads["head"].to_list() == [0, 1]
    columns = {"worse val/accuracy", "output_change", "low_output_change", "entropy", "self_mass"}
    assert columns <= set(heads.columns)
    curve = pl.read_csv(tmp_path / "out/curve.csv")
    assert set(curve["order"]) == {"least important first", "most important first", "random"}
    facts = json.loads((tmp_path / "out/report.json").read_text())
    whole = curve.filter(removed=0)["mean"].unique().to_list()
    assert whole == pytest.approx([facts["metrics"]["val/accuracy"]])
    page = (tmp_path / "out/index.html").read_text()
    assert "https://" not in page and "Mean weights" in page


def test_numbers_are_those_of_validations_without_the_head(ckpt):
    _, task, data, _ = opened(ckpt, "validate")
    trials = Trials(task, data, batches=2)
    found = trials.importance().values
    for head in range(2):
        with trials.removed([("", head)]):
            verdict = trials.run()
        worse = trials.whole.metrics["val/accuracy"] - verdict.metrics["val/accuracy"]
        assert float(found["worse val/accuracy"][0, 0, head]) == pytest.approx(worse)
        before, after = (torch.cat(list(x.outputs)) for x in (trials.whole, verdict))
        change = (before - after).square().mean(1)
        torch.testing.assert_close(found["output_change"][:, 0, head], change)
    assert trials.run().metrics == trials.whole.metrics  # and afterwards all is as before


def test_what_a_task_has_to_say_is_heard_once(ckpt, capsys):
    _, task, data, _ = opened(ckpt, "validate")
    task.on_validation_epoch_end = lambda: print("note: worse than the base rate", file=sys.stderr)
    trials = Trials(task, data, batches=1)
    trials.importance()
    assert capsys.readouterr().err.count("note") == 1


def test_a_task_may_ask_the_trainer_for_its_data(ckpt):
    _, task, data, _ = opened(ckpt, "validate")

    class Asking(type(task)):
        def configure_model(self):
            assert self.trainer.datamodule.size == data.size
            self.asked = self.trainer.datamodule.val_dataloader

    task.__class__ = Asking
    found = Trials(task, data, batches=1)
    assert len(list(task.asked())) == 1 and found.whole.metrics


def test_an_interrupted_run_leaves_nothing(tiny, ckpt, tmp_path, monkeypatch):
    def stop(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(analyze, "_write_page", stop)
    code, *_ = tiny("analyze", str(ckpt), "--out", str(tmp_path / "out"), "--batches", "1")
    assert code == 130 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words, said",
    [
        (["none.ckpt"], "none.ckpt: no such file"),
        (["CKPT", "--batches", "0"], "batches must be at least 1, got 0"),
        (["CKPT", "more"], "one word too many"),
    ],
)
def test_refusals_in_one_line(tiny, ckpt, words, said):
    code, _, error = tiny("analyze", *(str(ckpt) if word == "CKPT" else word for word in words))
    assert code == 2 and len(error) == 1 and said in error[0]
