"""Tables dealt out by torchrec; where it is not installed nothing of it is run."""

import pytest
import torch

from core_attn.testing.process import start
from core_attn.testing.runs import assert_two_processes_learn_as_one, only_run, torchrun

pytest.importorskip("torchrec", reason="torchrec is not installed")
SHORT = (
    *("--config", "synthetic-autoint", "--data.rows", "2001", "--data.drop_last", "true"),
    *("--model.config.block_widths", "[8]", "--model.tables", "torchrec"),
)


def in_two_processes(words, folder):
    ranks = [
        start("attn_recsys", words, folder, environment=environment) for environment in torchrun(2)
    ]
    for process in ranks:
        process.join()
        assert process.exitcode == 0, (folder / "err0.txt").read_text()


def last(folder):
    return torch.load(only_run(folder) / "last.ckpt", weights_only=True)


def test_dealt_out_tables_learn_and_resume_as_whole_ones_do(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTN_RECSYS_CACHE", str(tmp_path))
    words = (*SHORT, "--trainer.max_epochs", "2")
    assert_two_processes_learn_as_one("attn_recsys", words, tmp_path, batch_size=64, atol=1e-4)
    one, two = (last(tmp_path / name) for name in ("one", "two"))
    for name, x in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], x, atol=1e-4, rtol=1e-3)

    parallel = (
        *("--trainer.strategy", "ddp", "--trainer.devices", "2", "--data.batch_size", "32"),
        *("--trainer.enable_progress_bar", "false"),
    )
    cut = tmp_path / "cut"
    in_two_processes(("fit", *SHORT, "--trainer.max_epochs", "1", *parallel), cut)
    in_two_processes(("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2"), cut)
    for name, x in last(cut)["state_dict"].items():
        torch.testing.assert_close(x, two["state_dict"][name], atol=1e-5, rtol=1e-4)
