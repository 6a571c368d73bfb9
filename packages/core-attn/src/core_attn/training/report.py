"""`report`: one self-contained HTML file about a run."""

import base64
import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .exhibit import Exhibit

NO_CURVE = {"epoch", "step", "train/samples_per_second", "train/peak_memory_mib"}
TEMPLATE = Path(__file__).with_name("report.html.jinja")


def report(ckpt: str, out: str | None = None) -> None:
    """Write one HTML page about a checkpoint, and its pictures and sounds as files beside it.

    Args:
        ckpt: the checkpoint; logs, and what `validate` and `test` gave, are read beside it.
        out: the file to write; by default report.html beside the checkpoint. The folder of the
            pictures has its name without the ending.
    """
    import yaml
    from jinja2 import Environment, StrictUndefined

    from .checkpoint import opened
    from .runs import read_metrics

    path, task, data, content = opened(ckpt, "test")
    rows = read_metrics(path.parent)
    parameters = sum(p.numel() for p in task.model.parameters())
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    target = Path(out) if out else path.with_name("report.html")
    folder = target.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    html = page.render(
        title=content["recipe"],
        facts={
            "Model": f"{type(task).__name__}, {parameters:,} parameters",
            "Data": type(data).__name__,
            "Checkpoint": f"{path}, after epoch {content['epoch'] + 1}",
            "Optimizer steps": f"{content['global_step']:,}",
        },
        curves=[_shown(curve, folder) for curve in curves(rows)],
        metrics=_table(_final_metrics(path, rows)),
        exhibits=[_shown(exhibit, folder) for exhibit in task.figures(data)],
        config=yaml.safe_dump(content["config"], sort_keys=False),
    )
    target.write_text(html, encoding="utf-8")
    print(target)
    print(f"{folder}/")


def curves(rows: Sequence[Mapping[str, str]]) -> Iterable[Exhibit]:
    """One figure for each quantity in the log, with training and validation in the same axes."""
    from matplotlib.figure import Figure

    names = sorted({name for row in rows for name in row} - NO_CURVE)
    for quantity in dict.fromkeys(name.partition("/")[2] or name for name in names):
        figure = Figure(figsize=(5, 2.8), layout="constrained")
        axes = figure.subplots()
        numbers = []
        for name in names:
            if quantity in (name, name.partition("/")[2]):
                points = [(int(row["step"]), float(row[name])) for row in rows if name in row]
                numbers += [{"curve": name, "step": step, "value": y} for step, y in points]
                marker = "." if len(points) < 30 else ""
                axes.plot(*zip(*points, strict=True), marker=marker, lw=1.2, label=name)
        axes.set_xlabel("step")
        axes.set_title(quantity.replace("_", " "), loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
        axes.legend(frameon=False, fontsize=8)
        yield Exhibit(quantity, "", figure, numbers, f"curve-{_slug(quantity)}")


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


def _shown(exhibit: Exhibit, folder: Path) -> dict[str, Any]:
    """What the page shows of an exhibit, whose files are written."""
    from matplotlib.figure import Figure

    title, caption, content, rows, name = exhibit
    path = folder / (name or _slug(title))
    shown: dict[str, Any] = {"title": title, "caption": caption}
    if isinstance(content, Figure):
        file = io.BytesIO()
        content.savefig(file, format="png", dpi=144, bbox_inches="tight")
        path.with_name(f"{path.name}.png").write_bytes(file.getvalue())
        shown["png"] = base64.b64encode(file.getvalue()).decode()
    elif isinstance(content, bytes):
        path.with_name(f"{path.name}.wav").write_bytes(content)
        shown["wav"] = base64.b64encode(content).decode()
    else:
        shown["table"] = _table(content)
        rows = rows or content
    if rows:
        with path.with_name(f"{path.name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
    return shown


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "exhibit"


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, list]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    texts = {key for row in rows for key, value in row.items() if isinstance(value, str)}
    return {
        "columns": columns,
        "numbers": [place for place, key in enumerate(columns) if key not in texts],
        "rows": [[_cell(row.get(key, "")) for key in columns] for row in rows],
    }


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
