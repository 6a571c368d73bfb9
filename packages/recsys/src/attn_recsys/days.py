"""Day after day: train on one, test on the next, with the model of the day before and without."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core_attn.cli import main
from core_attn.training.runs import find_checkpoint

from .cli import next_day
from .data.blocks import find_files
from .serving import evaluate

FLAGS = ("--trainer.enable_progress_bar", "false")


def prequential(
    schema: str, files: Sequence[str], recipe: str, out: Path, flags: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Metrics on each day but the first, of a model warm-started every day and of one trained anew.

    The warm one goes on from the day before, with that day's rows only; the other one is trained
    from nothing on all days so far.

    Args:
        schema: what the columns mean.
        files: one per day, in order, two or more.
        recipe: for one's own table.
        out: where runs, days.csv and days.png go.
        flags: of every `fit`.

    Raises:
        FileNotFoundError: a day is missing.
        ValueError: there are fewer than two days, or a run fails.
    """
    if len(files) < 2:
        raise ValueError(f"days needs two files or more, one per day, got {len(files)}")
    for day in files:  # the last one would be missed after hours
        find_files(day)
    rows: list[dict[str, Any]] = []
    before = Path()
    for number, day in enumerate(files[:-1]):
        for name, trained_on in (("warm", [day]), ("anew", list(files[: number + 1]))):
            root = out / name
            words = ["--trainer.default_root_dir", str(root), *FLAGS, *flags]
            words += ["--data.files", json.dumps(trained_on)]
            if name == "warm" and number:
                code = next_day(["fit", "--ckpt_path", str(before), *words])
            else:
                start = ["fit", "--config", recipe, "--data.schema", schema]
                code = main("attn_recsys", [*start, *words])
            if code:
                raise ValueError(f"training on {', '.join(trained_on)} failed")
            best = _best(root, recipe)
            before = best if name == "warm" else before
            count, found, *_ = evaluate(best, files[number + 1])
            rows.append({"tested on": files[number + 1], "model": name, "rows": count} | found)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "days.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    _draw(rows, out / "days.png")
    return rows


def _best(root: Path, recipe: str) -> Path:
    """Of the newest run, since others may have been here before."""
    folder = find_checkpoint(root, Path(recipe).stem, "last").parent
    best = folder / "best.ckpt"
    return best if best.exists() else folder / "last.ckpt"


def _draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    for name in ("warm", "anew"):
        own = [row for row in rows if row["model"] == name]
        days = [Path(row["tested on"]).stem for row in own]
        axes.plot(days, [row["logloss"] for row in own], "o-", ms=4, label=name)
    axes.set(xlabel="tested on", ylabel="log loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=144)
