"""What every package's runs must be: the same in any process, killed and resumed, in several."""

import contextlib
import csv
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cli import main
from .process import start

QUIET = ("--trainer.enable_progress_bar", "false")


def assert_resumes_exactly(
    package: str, words: Sequence[str], folder: Path, *, kill_after: int, every: int = 3
) -> None:
    """Trains once in this process, and once in others, killed and resumed; all numbers are equal.

    The processes hash differently (PYTHONHASHSEED), so that an order taken from a set of names is
    found out, and the run is continued by `fit --ckpt_path last` alone.

    Args:
        package: the import name.
        words: of a short `fit`: a recipe, few and small steps, at least two epochs.
        folder: an empty one, where the runs go.
        kill_after: calls of an optimizer after which the process kills itself, within an epoch and
            not at a multiple of `every`; any of the run.
        every: steps between checkpoints.

    Raises:
        AssertionError: weights, optimizer, schedule, random states or logged numbers differ.
    """
    fit = ("fit", *words, *QUIET, "--checkpoint_every_n_steps", str(every))
    whole, cut = folder / "whole", folder / "cut"
    train_here(package, fit, whole)
    _finished(start(package, fit, cut, kill_after=kill_after), cut, -signal.SIGKILL)
    run = only_run(cut)
    step, total = (_last(path)["global_step"] for path in (run, only_run(whole)))
    if not 0 < step < total:
        raise AssertionError(f"killed after {kill_after} calls, saved at step {step} of {total}")
    _finished(start(package, ("fit", "--ckpt_path", "last"), cut), cut)
    if only_run(cut) != run:
        raise AssertionError(f"{run} was continued as {only_run(cut)}")
    assert_same_run(only_run(whole), run)


def assert_two_processes_learn_as_one(
    package: str,
    words: Sequence[str],
    folder: Path,
    *,
    batch_size: int,
    flag: str = "--data.batch_size",
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> None:
    """Trains in one process and in two with half the batch each; the logged numbers are equal.

    Args:
        package: the import name.
        words: of a short `fit` without random augmentation or dropout, which processes draw apart.
        folder: an empty one, where the runs go.
        batch_size: of all processes together; even.
        flag: that sets it for one process.
        rtol: the largest difference, relative to the number, of which sums in another order differ.
        atol: what is added to it.

    Raises:
        AssertionError: losses or metrics differ.
    """
    fit = ("fit", *words, *QUIET)
    one, two = folder / "one", folder / "two"
    train_here(package, (*fit, flag, str(batch_size)), one)
    parallel = ("--trainer.strategy", "ddp", "--trainer.devices", "2", flag, str(batch_size // 2))
    ranks = [
        start(package, (*fit, *parallel), two, environment=environment)
        for environment in torchrun(2)
    ]
    for process in ranks:
        _finished(process, two)
    wanted, found = curves(only_run(one)), curves(only_run(two))
    if wanted.keys() != found.keys():
        raise AssertionError(f"logged are {sorted(wanted)} and {sorted(found)}")
    for name, want in wanted.items():
        torch.testing.assert_close(
            torch.tensor(found[name]),
            torch.tensor(want),
            rtol=rtol,
            atol=atol,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def train_here(package: str, words: Sequence[str], folder: Path) -> None:
    """Runs a command in this process, in a folder.

    Raises:
        AssertionError: it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.pop("ATTN_RUN_FOLDER", None)
    with contextlib.chdir(folder):
        code = main(package, words)
    if code:
        raise AssertionError(f"{package} {' '.join(words)}: exit code {code}")


def torchrun(processes: int) -> list[dict[str, str]]:
    """The environments that torchrun gives the processes of one host."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [
        {
            **{name: str(rank) for name in ("RANK", "LOCAL_RANK")},
            **{name: str(processes) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"},
            "GROUP_RANK": "0",
        }
        for rank in range(processes)
    ]


def _finished(process: Any, folder: Path, code: int = 0) -> None:
    process.join()
    if process.exitcode != code:
        said = "\n".join(path.read_text() for path in sorted(folder.glob("err*.txt")))
        raise AssertionError(f"exit code {process.exitcode}, not {code}: {said}")


def _last(run: Path) -> dict[str, Any]:
    return torch.load(run / "last.ckpt", weights_only=True)


def only_run(folder: Path) -> Path:
    """The folder of the one run under `folder`/runs."""
    runs = sorted((folder / "runs").glob("*/version_*"))
    if len(runs) != 1:
        raise AssertionError(f"{folder}/runs holds {[str(run) for run in runs]}")
    return runs[0]


def curves(run: Path) -> dict[str, list[float]]:
    """What a run logged of its losses and metrics, by name."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith(("train/", "val/"))]
    measured = ("samples_per_second", "peak_memory_mib")
    return {
        name: [float(row[name]) for row in rows if row[name]]
        for name in names
        if not name.endswith(measured)
    }


def assert_same_run(one: Path, other: Path) -> None:
    """Requires equal last checkpoints of two runs, bit by bit, and equal validation metrics."""
    a, b = _last(one), _last(other)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert_equal(a[key], b[key], key)
    random = [x["callbacks"].get("LastCheckpoint") for x in (a, b)]
    assert_equal(random[0], random[1], "random states")
    one_curves, other_curves = curves(one), curves(other)
    for name in one_curves:
        if name.startswith("val/"):
            assert_equal(one_curves[name], other_curves.get(name), name)


def assert_equal(one: Any, other: Any, path: str) -> None:
    """Requires equal nested data; the error names the first difference."""
    if isinstance(one, Tensor):
        same = isinstance(other, Tensor) and torch.equal(one, other)
    elif isinstance(one, Mapping):
        same = isinstance(other, Mapping) and one.keys() == other.keys()
        for key in one if same else ():
            assert_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        same = isinstance(other, list | tuple) and len(one) == len(other)
        for number, pair in enumerate(zip(one, other, strict=False) if same else ()):
            assert_equal(*pair, f"{path}[{number}]")
    else:
        same = one == other
    if not same:
        raise AssertionError(f"{path} differs: {str(one)[:200]} and {str(other)[:200]}")
