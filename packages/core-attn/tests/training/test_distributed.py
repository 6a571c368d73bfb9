import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FIT = (
    *("fit", "--config", "points-tiny", "--model.dropout", "0", "--data.jitter", "0"),
    *("--trainer.enable_progress_bar", "false"),
)
PARALLEL = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--data.batch_size", "4")


def test_two_processes_learn_as_one_does_at_equal_global_batch(start, tmp_path):
    """An epoch as Lightning starts the processes, then another, resumed, as torchrun does."""
    one, two = (tmp_path / name for name in ("one", "two"))
    alone = start(one, *FIT, "--trainer.max_epochs", "2", "--data.batch_size", "8")
    two.mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "attn_tiny", *FIT, *PARALLEL, "--trainer.max_epochs", "1"],
        cwd=two, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    words = (*FIT, *PARALLEL, "--trainer.max_epochs", "2", "--ckpt_path", "last")
    port = free_port()
    resumed = [start(two, *words, **torchrun(rank, port)) for rank in range(2)]
    for process in (alone, *resumed):
        process.join()
        assert process.exitcode == 0, [path.read_text() for path in two.glob("err*.txt")]

    want, got = log(one), log(two)
    assert len(want["train/loss"]) == 16
    for name in ("step", "train/loss", "val/loss", "val/accuracy"):
        assert got[name] == pytest.approx(want[name], abs=1e-5), name
    assert [path.name for path in (two / "runs/points-tiny").iterdir()] == ["version_0"]


def test_two_processes_measure_and_predict_every_sample_once(start, tmp_path):
    one = tmp_path / "one"
    train = start(one, *FIT, "--trainer.max_epochs", "1")
    train.join()
    assert train.exitcode == 0
    trained = (one / "runs/points-tiny/version_0/last.ckpt").read_bytes()
    words = ("--ckpt", "last.ckpt", "--data.test_size", "13", "--data.batch_size", "4")
    parallel = ("--trainer.strategy", "ddp", "--trainer.devices", "2")
    results = {}
    for number in (1, 2):
        folder = tmp_path / f"by {number}"
        folder.mkdir()
        (folder / "last.ckpt").write_bytes(trained)
        for command in ("test", "predict"):
            port = free_port()
            if number == 1:
                running = [start(folder, command, *words)]
            else:
                given = [torchrun(rank, port) for rank in range(2)]
                running = [start(folder, command, *words, *parallel, **x) for x in given]
            for process in running:
                process.join()
                assert process.exitcode == 0, [path.read_text() for path in folder.glob("err*.txt")]
        predictions = torch.load(folder / "last.predictions.pt", weights_only=True)
        results[number] = (
            torch.cat(predictions),
            json.loads((folder / "last.test.json").read_text()),
        )
    assert results[1][0].shape == (13, 2)
    torch.testing.assert_close(results[2][0], results[1][0])
    assert results[2][1] == pytest.approx(results[1][1], abs=1e-6)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def torchrun(rank, port):
    return {
        **{name: str(rank) for name in ("RANK", "LOCAL_RANK")},
        **{name: "2" for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"},
        "GROUP_RANK": "0",
    }


def log(folder):
    with (folder / "runs/points-tiny/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}
