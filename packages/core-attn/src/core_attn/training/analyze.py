"""`analyze`: which heads of a trained network matter, and how they spread their weight."""

import json
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cli import positional


@positional("ckpt")
def analyze(
    ckpt: str,
    out: str = "analysis",
    batches: int = 4,
    seed: int = 0,
    quiet: bool = False,
) -> None:
    """Show which heads of a checkpoint matter, and how they spread their weight.

    Writes index.html (no network needed), heads.csv, curve.csv and report.json.

    Args:
        ckpt: the checkpoint; its data must be where they were.
        out: the folder to write.
        batches: of the validation data.
        seed: of the random orders and the intervals.
        quiet: whether to say nothing but the page's path.
    """
    from ..analysis import whole_folder

    if batches < 1:
        raise ValueError(f"batches must be at least 1, got {batches}")

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    found = look_into(ckpt, batches=batches, seed=seed, say=say)
    with whole_folder(Path(out)) as folder:
        for name in ("heads", "curve"):
            found[name].write_csv(folder / f"{name}.csv")
        facts = json.dumps(found["facts"], indent=1)
        (folder / "report.json").write_text(facts, encoding="utf-8")
        _write_page(folder / "index.html", found)
    print(Path(out) / "index.html")


def look_into(
    ckpt: str,
    *,
    batches: int = 4,
    seed: int = 0,
    say: Any = lambda text: None,
) -> dict[str, Any]:
    """The numbers of `analyze`.

    Args:
        ckpt: the checkpoint.
        batches: of the validation data.
        seed: of the random orders and the intervals.
        say: told what is done, and what it will cost.

    Returns:
        `heads` (a table with a row per head) and `curve` (a table), `importance` (a
        `HeadImportance`), `profiles` (per layer), `metric` (what is monitored), `facts`.

    Raises:
        FileNotFoundError: there is no such file, or the data are not where they were.
        ValueError: it is no checkpoint, or its network has no attention layer.
    """
    import torch

    from ..analysis import curve_of, profile_table
    from .checkpoint import opened
    from .trials import Trials

    path, task, data, content = opened(ckpt, "validate")
    start = time.perf_counter()
    trials = Trials(task, data, batches)
    start, once = time.perf_counter(), 0.0
    trials.run()
    once = time.perf_counter() - start
    total = sum(trials.num_heads.values())
    most = total + 5 * 9 + 1
    say(f"{total} heads in {len(trials.num_heads)} layers; at most {most} validations of "
        f"{_batches(len(trials.batches))}, about {most * once:.0f} s")  # fmt: skip
    for name, reason in trials.silent.items():
        say(f"{name}: {reason}; how it spreads its weight is not shown")
    importance = trials.importance()
    worse = next(iter(importance.values))
    curve = curve_of(trials.monitored, importance.ranking(worse), seed=seed)
    table = importance.table(seed=seed)
    wide = table.pivot("metric", index=["layer", "name", "head"], values=["mean", "low", "high"])
    wide = wide.rename({name: name.removeprefix("mean_") for name in wide.columns})
    wide = wide.select([name for name in wide.columns if wide[name].null_count() < wide.height])
    heads = wide.join(
        profile_table(trials.profiles).drop("layer"), on=["name", "head"], how="left"
    ).sort("layer", "head")
    facts = {
        "checkpoint": str(path),
        "recipe": content["recipe"],
        "epoch": content["epoch"] + 1,
        "model": type(task.model).__name__,
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "data": type(data).__name__,
        "batches": len(trials.batches),
        "metrics": dict(trials.whole.metrics),
        "ranked by": worse,
        "without weights": trials.silent,
        "seed": seed,
        "seconds": round(time.perf_counter() - start, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    return {
        "heads": heads, "curve": curve, "importance": importance, "profiles": trials.profiles,
        "metric": task.monitor, "facts": facts,
    }  # fmt: skip


def _batches(count: int) -> str:
    return f"{count} batch" if count == 1 else f"{count} batches"


def _write_page(path: Path, found: Mapping[str, Any]) -> None:
    from ..analysis import figures
    from ..analysis.page import Section, write_page

    facts = found["facts"]
    metric = found["metric"]
    defined = [f"'worse {metric}' says by how much {metric} gets worse, over all batches"]
    if "output_change" in found["importance"].values:
        defined.append(
            "'output change' is the mean square of the change of the network's output, with "
            "intervals of 95 % over samples in the table"
        )
    matters = Section(
        "Which heads matter",
        "A head is removed by setting its output to 0 before the output projection. "
        f"{'; '.join(defined)}. This project's definition{'s' if defined[1:] else ''}.",
        [
            ("Every head", "Red: something is lost without the head; blue: gained.",
             figures.importance_maps(found["importance"])),
            ("Does the ranking mean something?", "It does if the three orders lie apart: heads "
             "said to matter least can go first at little loss.",
             figures.curve(found["curve"], metric)),
        ],
    )  # fmt: skip
    sections = [matters]
    if found["profiles"]:
        spread = Section(
            "How heads spread their weight",
            "Means over queries. Entropy is in nats; distance is in places between query and key.",
            [("Over depth", "One dot per head.", figures.profile_trends(found["profiles"]))],
        )
        maps = {name: x.compute() for name, x in found["profiles"].items() if x.has_map}
        maps = {name: x for name, x in maps.items() if max(x.shape[1:]) <= 256}
        if maps:
            spread.figures.append(
                ("Mean weights", "Query by key, mean over samples, each head on its own scale.",
                 figures.mean_maps(maps)),
            )  # fmt: skip
        sections.append(spread)
    said = ", ".join(f"{name} {value:.4g}" for name, value in facts["metrics"].items())
    shown = {
        "Checkpoint": f"{facts['checkpoint']}, after epoch {facts['epoch']}",
        "Model": f"{facts['model']}, {facts['parameters']:,} parameters",
        "Data": f"{facts['data']}, {_batches(facts['batches'])}",
        "With all heads": said,
        "Seed": str(facts["seed"]),
    }
    write_page(
        path, title=f"Attention of {facts['recipe']}", facts=shown, thumbnails=[],
        heads=found["heads"], sections=sections, dots=[], picker=None,
    )  # fmt: skip
