"""One look for all figures: theory as lines, simulation as markers with bars."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from . import montecarlo, tables
from .experiment import Experiment, Result
from .references import Reference

# Okabe and Ito's palette: told apart by color-blind readers and in print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B")
MARKERS = "osD^vPX*"
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "savefig.dpi": 110,
    "svg.hashsalt": "attn-theory",
}


def panels(rows: int = 1, columns: int = 1, width: float = 4.2, height: float = 3.2):
    """A figure and its axes, (rows, columns), without pyplot's global state.

    Example:
        >>> figure, axes = panels(1, 2)
        >>> axes.shape
        (1, 2)
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False)


def points(ax: Axes, x, y, error=None, *, index: int = 0, label: str | None = None) -> None:
    """Simulated values: open markers, bars of one standard error where there are any."""
    ax.errorbar(
        x, y, yerr=error, fmt=MARKERS[index % len(MARKERS)], ms=4.5, mfc="white", capsize=2,
        color=COLORS[index % len(COLORS)], label=label, lw=1.0, ls="none",
    )  # fmt: skip


def means(
    ax: Axes,
    x,
    values: Float[np.ndarray, "points seeds"],
    *,
    index: int = 0,
    label: str | None = None,
) -> None:
    """Means over seeds with their standard errors; without bars where there is one seed."""
    values = np.asarray(values)
    error = montecarlo.standard_error(values.T) if values.shape[1] > 1 else None
    points(ax, x, values.mean(1), error, index=index, label=label)


def line(ax: Axes, x, y, *, index: int = 0, label: str | None = None, style: str = "-") -> None:
    """A theory curve."""
    ax.plot(x, y, style, color=COLORS[index % len(COLORS)], label=label)


def stars(
    ax: Axes, known: Mapping[Any, Reference], *, index: int = 0, label: str | None = None
) -> None:
    """References by their abscissa, as filled stars; nothing where there are none."""
    if known:
        values = [reference.value for reference in known.values()]
        color = COLORS[index % len(COLORS)]
        ax.plot(list(known), values, "*", ms=7, color=color, label=label, alpha=0.6)


def heatmap(ax: Axes, matrix: np.ndarray, *, title: str = "", limit: float | None = None):
    """A signed matrix on a diverging map that is white at 0 and symmetric about it."""
    limit = limit or float(np.abs(matrix).max()) or 1.0
    image = ax.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="equal")
    ax.set_title(title)
    return image


def labels(ax: Axes, x: str, y: str, title: str = "", legend: bool = True) -> None:
    """Names the axes and shows the legend."""
    ax.set(xlabel=x, ylabel=y, title=title)
    if legend:
        ax.legend()


def ticks(ax: Axes, values: Iterable[float]) -> None:
    """Marks the given values, and no others, on a logarithmic abscissa."""
    marks = list(values)
    ax.set_xticks(marks, [f"{mark:g}" for mark in marks])
    ax.xaxis.set_minor_locator(NullLocator())


def write(experiment: Experiment, result: Result, folder: Path) -> list[Path]:
    """Draws a result as PNG, SVG and PDF, with its data (CSV) and caption (JSON) beside them.

    The full run of an experiment has its plain name; the quick form and other configurations have
    names of their own.
    """
    name = experiment.entry.short
    if result.config != experiment.config:
        name += "-quick" if result.config == experiment.quick else f"-{result.key}"
    stem = Path(folder) / experiment.paper / name
    stem.parent.mkdir(parents=True, exist_ok=True)
    undated = {".png": {"Software": "attn-theory"}, ".svg": {"Date": None}}
    undated[".pdf"] = {"CreationDate": None}
    with matplotlib.rc_context(STYLE):
        figure = experiment.draw(result)
        for suffix, metadata in undated.items():
            figure.savefig(stem.with_suffix(suffix), metadata=metadata)
    files = [stem.with_suffix(suffix) for suffix in undated]
    for more, tidy in {"": experiment.tidy, **experiment.more}.items():
        files.append(stem.with_name(f"{name}-{more}.csv" if more else f"{name}.csv"))
        tables.frame(tidy, result).write_csv(files[-1])
    caption = {
        "experiment": experiment.name,
        "caption": experiment.title,
        "claim": experiment.entry.claim,
        "key": result.key,
        "config": asdict(result.config),
        "seconds": round(result.seconds, 2),
        "versions": result.versions,
        "command": f"attn-theory figure {experiment.name}",
    }
    files.append(stem.with_suffix(".json"))
    files[-1].write_text(json.dumps(caption, indent=1, default=str) + "\n")
    return files
