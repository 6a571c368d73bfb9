"""`report`: one self-contained HTML file about a run."""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .task import Exhibit

NO_CURVE = {"epoch", "step", "train/samples_per_second", "train/peak_memory_mib"}
TEMPLATE = Path(__file__).with_name("report.html.jinja")


def report(ckpt: str, out: str | None = None) -> None:
    """Write one HTML page about a checkpoint: curves, metrics, attention.

    Args:
        ckpt: the checkpoint; logs, and what `validate` and `test` gave, are read beside it.
        out: the file to write; by default report.html beside the checkpoint.
    """
    import yaml
    from jinja2 import Environment, StrictUndefined

    from .checkpoint import load_checkpoint, read_checkpoint
    from .runs import read_metrics

    path = Path(ckpt)
    checkpoint = read_checkpoint(path)
    task, data = load_checkpoint(path)
    data.prepare_data()
    data.setup("test")
    rows = read_metrics(path.parent)
    parameters = sum(p.numel() for p in task.model.parameters())
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    html = page.render(
        title=checkpoint["recipe"],
        facts={
            "Model": f"{type(task).__name__}, {parameters:,} parameters",
            "Data": type(data).__name__,
            "Checkpoint": f"{path}, after epoch {checkpoint['epoch'] + 1}",
            "Optimiser steps": f"{checkpoint['global_step']:,}",
        },
        curves=[_png(figure) for figure in curves(rows)],
        metrics=_table(_final_metrics(path, rows)),
        exhibits=[_shown(exhibit) for exhibit in task.figures(data)],
        config=yaml.safe_dump(checkpoint["config"], sort_keys=False),
    )
    target = Path(out) if out else path.with_name("report.html")
    target.write_text(html, encoding="utf-8")
    print(target)


def curves(rows: Sequence[Mapping[str, str]]) -> Iterable["Figure"]:
    """One figure for each quantity in the log, with training and validation in the same axes."""
    from matplotlib.figure import Figure

    names = sorted({name for row in rows for name in row} - NO_CURVE)
    for quantity in dict.fromkeys(name.partition("/")[2] or name for name in names):
        figure = Figure(figsize=(5, 2.8), layout="constrained")
        axes = figure.subplots()
        for name in names:
            if quantity in (name, name.partition("/")[2]):
                points = [(int(row["step"]), float(row[name])) for row in rows if name in row]
                marker = "." if len(points) < 30 else ""
                axes.plot(*zip(*points, strict=True), marker=marker, lw=1.2, label=name)
        axes.set_xlabel("step")
        axes.set_title(quantity.replace("_", " "), loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
        axes.legend(frameon=False, fontsize=8)
        yield figure


def _final_metrics(path: Path, rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    table = []
    for name in sorted({name for row in rows for name in row} - {"epoch", "step"}):
        values = [float(row[name]) for row in rows if name in row]
        table.append(
            {"metric": name, "last": values[-1], "lowest": min(values), "highest": max(values)}
        )
    for stage in ("validate", "test"):
        file = path.with_suffix(f".{stage}.json")
        if file.exists():
            for name, value in json.loads(file.read_text()).items():
                table.append({"metric": f"{name}, of {path.name}", "last": value})
    return table


def _shown(exhibit: "Exhibit") -> dict[str, Any]:
    from matplotlib.figure import Figure

    title, caption, content = exhibit
    kind = {"png": _png(content)} if isinstance(content, Figure) else {"table": _table(content)}
    return {"title": title, "caption": caption} | kind


def _png(figure: "Figure") -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=144, bbox_inches="tight")
    return base64.b64encode(file.getvalue()).decode()


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, list]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return {
        "columns": columns,
        "rows": [[_cell(row.get(key, "")) for key in columns] for row in rows],
    }


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
