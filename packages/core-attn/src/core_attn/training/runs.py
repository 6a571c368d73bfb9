"""Run folders: runs/<recipe>/version_<n> with config, logs, last.ckpt and best.ckpt."""

import csv
import os
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

FOLDER_OF_THE_FIRST_PROCESS = "ATTN_RUN_FOLDER"


def new_run(root: Path, recipe: str) -> Path:
    """The next free folder of a recipe; in processes started by another, that one's."""
    if os.environ.get("LOCAL_RANK", "0") != "0" and FOLDER_OF_THE_FIRST_PROCESS in os.environ:
        return Path(os.environ[FOLDER_OF_THE_FIRST_PROCESS])
    folder = root / recipe / f"version_{1 + max(_versions(root, recipe), default=-1)}"
    os.environ[FOLDER_OF_THE_FIRST_PROCESS] = str(folder)
    return folder


def find_checkpoint(root: Path, recipe: str | None, which: str) -> Path:
    """`last.ckpt` or `best.ckpt` of the newest run of a recipe that has one.

    Args:
        root: the folder of all runs.
        recipe: whose; None for the run of any recipe whose checkpoint was written last.
        which: "last" or "best".

    Raises:
        FileNotFoundError: no run has one.
    """
    if recipe is None:
        found = root.glob(f"*/version_*/{which}.ckpt")
        if newest := max(found, key=lambda path: path.stat().st_mtime_ns, default=None):
            return newest
        raise FileNotFoundError(f"--ckpt_path {which}: no run under {root} has a {which}.ckpt")
    for version in sorted(_versions(root, recipe), reverse=True):
        path = root / recipe / f"version_{version}" / f"{which}.ckpt"
        if path.exists():
            return path
    raise FileNotFoundError(
        f"--ckpt_path {which}: no run of {recipe} under {root} has a {which}.ckpt"
    )


def loggers(folder: Path, steps: int) -> list[Logger]:
    """CSV and TensorBoard logs in `folder`, continuing one of `steps` steps."""
    rows = [row for row in read_metrics(folder) if int(row["step"]) < steps]
    table = CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1)
    if rows and rank_zero_only.rank == 0:
        table.experiment.metrics.extend(rows)
        table.save()
    board = TensorBoardLogger(
        folder, name="", version="", default_hp_metric=False, purge_step=steps or None
    )
    return [table, board]


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv without their empty cells; none if there is no file."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: cell for key, cell in row.items() if cell} for row in csv.DictReader(file)]


def _versions(root: Path, recipe: str) -> list[int]:
    names = (path.name for path in (root / recipe).glob("version_*"))
    return [int(name[8:]) for name in names if name[8:].isdigit()]
