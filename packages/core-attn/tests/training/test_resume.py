import csv
import os
import signal
import time
from functools import cache

import pytest
import torch

FIT = ("fit", "--config", "points-ema", "--trainer.enable_progress_bar", "false")
SLOW = ("--data.seconds", "0.01")
ACCUMULATED = ("--trainer.accumulate_grad_batches", "2", "--data.batch_size", "4")
COUNTED = ("--trainer.max_steps", "32", "--trainer.max_epochs", "-1")
STEPS = 32


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """Gives the folder of a run that nothing interrupted, made once for each set of flags."""

    @cache
    def whole(*flags):
        folder = tmp_path_factory.mktemp("whole")
        process = start(folder, *FIT, *flags)
        process.join()
        assert process.exitcode == 0, (folder / "err.txt").read_text()
        return folder / "runs/points-ema/version_0"

    return whole


def wait_for_step(folder, step):
    deadline = time.monotonic() + 300
    while max((int(row["step"]) for row in rows(folder)), default=-1) < step:
        assert time.monotonic() < deadline, (folder.parents[2] / "err.txt").read_text()
        time.sleep(0.01)


def rows(folder):
    try:
        with (folder / "metrics.csv").open() as file:
            return [row for row in csv.DictReader(file) if row["step"]]
    except FileNotFoundError:
        return []


def assert_same(a, b, path=""):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    else:
        assert a == b, path


def assert_same_result(a, b):
    """Weights, averages, optimiser, schedule, random states and logged numbers are equal."""
    x, y = (torch.load(f / "last.ckpt", weights_only=True) for f in (a, b))
    assert x["global_step"] == y["global_step"] == STEPS
    keys = ("state_dict", "current_model_state", "averaging_state", "optimizer_states")
    for key in (*keys, "lr_schedulers"):
        assert_same(x[key], y[key], key)
    assert_same(*(c["callbacks"]["LastCheckpoint"] for c in (x, y)), "random")
    for name in ("train/loss", "val/loss", "val/accuracy"):
        curves = [{row["step"]: row[name] for row in rows(f) if row[name]} for f in (a, b)]
        assert curves[0] == curves[1], name


@pytest.mark.parametrize(
    ("flags", "every", "step"),
    [
        ((), 3, 5),
        ((), 0, 18),
        ((*ACCUMULATED, *COUNTED), 3, 13),
        (COUNTED, 0, 9),
    ],
    ids=["within an epoch", "between epochs", "accumulating, by steps", "by steps"],
)
def test_a_killed_run_resumes_to_identical_numbers(start, whole, tmp_path, flags, every, step):
    folder = tmp_path / "runs/points-ema/version_0"
    words = (*FIT, *flags, "--checkpoint_every_n_steps", str(every))
    process = start(tmp_path, *words, *SLOW)
    wait_for_step(folder, step)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    saved = torch.load(folder / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < saved < STEPS
    assert every or saved % 8 == 0

    resumed = start(tmp_path, *words, "--ckpt_path", "last")
    resumed.join()
    assert resumed.exitcode == 0, (tmp_path / "err.txt").read_text()
    assert not list((tmp_path / "runs").glob("*/version_1"))
    assert_same_result(whole(*flags), folder)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_is_saved_and_resumes_exactly(start, whole, tmp_path, number, code):
    folder = tmp_path / "runs/points-ema/version_0"
    process = start(tmp_path, *FIT, *SLOW)
    wait_for_step(folder, 10)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == code
    *_, line = (tmp_path / "out.txt").read_text().splitlines()
    command = line.removeprefix("stopped; to continue: attn-tiny ").split()
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] >= 10

    resumed = start(tmp_path, *command)
    resumed.join()
    assert resumed.exitcode == 0, (tmp_path / "err.txt").read_text()
    assert_same_result(whole(), folder)
