import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

FIT = (
    *("fit", "--config", "points-tiny", "--model.dropout", "0", "--data.jitter", "0"),
    *("--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "2"),
)


def test_two_processes_learn_as_one_does_at_equal_global_batch(start, tmp_path):
    alone = start(tmp_path / "one", *FIT, "--data.batch_size", "8")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    (tmp_path / "two").mkdir()
    parallel = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--data.batch_size", "4")
    done = subprocess.run(
        [sys.executable, "-m", "attn_tiny", *FIT, *parallel],
        cwd=tmp_path / "two", env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    alone.join()
    assert (alone.exitcode, done.returncode) == (0, 0), done.stderr
    one, two = (log(tmp_path / name) for name in ("one", "two"))
    assert len(one["train/loss"]) == 16
    for name in ("train/loss", "val/loss", "val/accuracy"):
        assert two[name] == pytest.approx(one[name], abs=1e-5), name


def log(folder):
    with (folder / "runs/points-tiny/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}
