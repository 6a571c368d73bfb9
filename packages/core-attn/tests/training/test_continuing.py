"""What a continued run keeps; what a failed one leaves."""

import errno
import resource
import signal
import sys

import pytest
import torch
import yaml

FIT = ("fit", "--config", "points-tiny", "--trainer.enable_progress_bar", "false")
RUN = "runs/points-tiny/version_0"


@pytest.fixture
def started(tiny, tmp_path):
    """A run of one epoch with flags of its own."""
    flags = ("--data.batch_size", "16", "--model.width", "4", "--seed_everything", "5")
    assert tiny(*FIT, *flags, "--trainer.max_epochs", "1")[0] == 0
    return tmp_path / RUN


@pytest.mark.parametrize("named", [(), ("--config", "points-tiny"), ("-c=points-tiny",)])
def test_a_run_continues_with_its_flags_and_those_that_are_new(tiny, started, named):
    words = ("fit", *named, "--ckpt_path", "last", "--trainer.max_epochs=3", "--model.lr", "0.5")
    code, out, _ = tiny(*words)
    assert code == 0
    assert out[0] == f"from {RUN}/last.ckpt, after step 4, in {RUN}"
    config = yaml.safe_load((started / "config.yaml").read_text())
    assert config["data"]["init_args"]["batch_size"] == 16
    assert config["model"]["init_args"] | {"width": 4, "lr": 0.5} == config["model"]["init_args"]
    assert (config["trainer"]["max_epochs"], config["seed_everything"]) == (3, 5)
    last = torch.load(started / "last.ckpt", weights_only=True)
    assert last["global_step"] == 12 and last["recipe"] == "points-tiny"
    assert [path.name for path in started.parent.iterdir()] == ["version_0"]


def test_the_newest_run_of_any_recipe_is_continued(tiny, started):
    assert tiny(*FIT[:2], "points-ema", *FIT[3:], "--trainer.max_epochs", "1")[0] == 0
    code, out, _ = tiny("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2")
    assert code == 0 and "runs/points-ema/version_0" in out[0]


def test_without_a_run_there_is_nothing_to_continue(tiny):
    code, _, err = tiny("fit", "--ckpt_path", "last", "--trainer.default_root_dir", "elsewhere")
    assert code == 2
    assert err == ["attn-tiny: --ckpt_path last: no run under elsewhere has a last.ckpt"]


def test_a_run_that_fails_before_its_first_step_leaves_nothing(tiny, tmp_path):
    code, _, err = tiny(*FIT, "--data.size", "0")
    assert (code, len(err)) == (2, 1)
    assert not list((tmp_path / "runs").glob("*/*"))


def test_a_full_disk_keeps_the_last_good_checkpoint_and_no_part(tiny, started, monkeypatch):
    before = (started / "last.ckpt").read_bytes()

    def save(content, file):
        file.write(b"begun")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    code, _, err = tiny("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2")
    assert code == 2
    assert len(err) == 1 and err[0].endswith("ckpt: no space left on device")
    assert (started / "last.ckpt").read_bytes() == before
    assert not list(started.glob("*.part"))


@pytest.mark.parametrize(
    "words", [("predict", "--ckpt_path"), ("export", "--format=torch", "--ckpt")]
)
def test_a_full_disk_is_said_in_one_line(tiny, started, words, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which would be cut, for good
    files = sorted(started.iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, before[1]))
    try:
        code, _, err = tiny(*words, str(started / "last.ckpt"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (code, len(err)) == (2, 1), err
    assert err[0].endswith(": file too large")
    assert sorted(started.iterdir()) == files
