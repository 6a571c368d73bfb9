"""The pictures of an analysis of a vision transformer."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from torch import Tensor

from .importance import HeadImportance
from .patterns import Patterns
from .profile import NUMBERS, Profile
from .strength import Strength

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, HOT = "#1f4e79", "#9bb7d4", "#c0392b"


def importance_maps(found: HeadImportance, numbers: Sequence[int] | None = None) -> "Figure":
    """One panel per metric, four in a row: layers from top to bottom, heads in order, 0 white.

    Args:
        found: the importance.
        numbers: of its layers in the model; from 0 by default, here as in the other figures.
    """
    names = list(found.values)
    layers, heads = next(iter(found.values.values())).shape[1:]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = _figure(min(1.6 + 0.28 * heads, 4.2) * columns, (1.1 + 0.25 * layers) * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes, names, strict=False):
        means = found.values[name].mean(0)
        bound = float(means[~means.isnan()].abs().max()) or 1.0
        image = axis.imshow(means.numpy(), cmap="RdBu_r", vmin=-bound, vmax=bound)
        axis.set_title(name.replace("_", " "), fontsize=9, loc="left")
        axis.set_xticks(range(heads))
        axis.set_yticks(range(layers), numbers or range(layers))
        axis.tick_params(labelsize=7)
        axis.set_xlabel("head", fontsize=8)
        figure.colorbar(image, ax=axis, shrink=0.8).ax.tick_params(labelsize=7)
    for axis in axes[::columns]:
        axis.set_ylabel("layer", fontsize=8)
    return figure


def correlations(frame: pl.DataFrame) -> "Figure":
    """Spearman's correlation of the metrics over heads."""
    names = frame["metric"].to_list()
    values = frame.drop("metric").to_numpy()
    figure = _figure(1.8 + 0.55 * len(names), 1.4 + 0.45 * len(names))
    (axis,) = _row(figure, 1)
    axis.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    labels = [name.replace("_", " ") for name in names]
    axis.set_xticks(range(len(names)), labels, rotation=45, ha="right", fontsize=8)
    axis.set_yticks(range(len(names)), labels, fontsize=8)
    for row in range(len(names)):
        for column in range(len(names)):
            value = values[row, column]  # NaN where a metric is the same for all heads
            color = "white" if abs(value) > 0.6 else "black"
            said = "–" if value != value else f"{value:.2f}"
            axis.text(column, row, said, ha="center", va="center", fontsize=7, color=color)
    return figure


def curve(frame: pl.DataFrame, metric: str) -> "Figure":
    """What is left or lost as heads go, in three orders."""
    figure = _figure(5.6, 3.2)
    (axis,) = _row(figure, 1)
    colors = {"least important first": INK, "most important first": HOT, "random": "gray"}
    for order, color in colors.items():
        part = frame.filter(order=order)
        for draw in part["draw"].unique().sort():
            line = part.filter(draw=draw).sort("removed")
            label = order if draw == 0 else None
            alpha = 0.6 if order == "random" else 1
            axis.plot(line["removed"], line["mean"], ".-", color=color, label=label, alpha=alpha)
    axis.set(xlabel="heads removed", ylabel=metric.replace("_", " "))
    axis.locator_params(axis="x", integer=True)
    axis.legend(frameon=False, fontsize=8)
    return _plain(figure)


def partial_bars(frames: Mapping[str, pl.DataFrame], metric: str) -> "Figure":
    """For each head, what is lost under each partial pruning."""
    figure = _figure(3.4 * len(frames), 2.8)
    for axis, (head, frame) in zip(_row(figure, len(frames)), frames.items(), strict=True):
        part = frame.filter(metric=metric)
        names = [name.replace("_", " ") for name in part["part"]]
        colors = [HOT if name == "whole head" else INK for name in names]
        axis.barh(names[::-1], part["mean"].to_list()[::-1], color=colors[::-1])
        axis.axvline(0, color="gray", lw=0.6)
        axis.set_title(head, fontsize=9, loc="left")
        axis.set_xlabel(metric.replace("_", " "), fontsize=8)
        axis.locator_params(axis="x", nbins=4)
        axis.tick_params(labelsize=7)
    return _plain(figure)


def hop_lines(
    strengths: Mapping[str, Strength],
    key: str,
    tint: Tensor | None,
    numbers: Sequence[int] | None = None,
) -> "Figure":
    """A small line per head: strength over hops; the background shows its importance."""
    from matplotlib import colormaps

    means = [strength.numbers()[key].mean(0) for strength in strengths.values()]
    heads = max(map(len, means))
    figure = _figure(1.0 + 0.95 * heads, 0.6 + 0.62 * len(means))
    axes = figure.subplots(len(means), heads, sharex=True, sharey=True, squeeze=False)
    bound = float(tint[~tint.isnan()].abs().max()) if tint is not None else 1.0
    for layer, of_heads in enumerate(means):
        for head, axis in enumerate(axes[layer]):
            axis.tick_params(labelsize=6, length=2)
            if layer == 0:
                axis.set_title(f"head {head}", fontsize=7)
            if head >= len(of_heads):  # a layer that has lost heads
                axis.set_axis_off()
                continue
            axis.plot(of_heads[head], color=INK, lw=1)
            if tint is not None:
                share = float(tint[layer, head]) / (bound or 1.0)
                axis.set_facecolor(colormaps["RdBu_r"](0.5 + 0.5 * share, alpha=0.45))
    _name_rows(axes, numbers)
    figure.supxlabel("hops", fontsize=8)
    return _plain(figure)


def trends(strengths: Mapping[str, Strength], numbers: Sequence[int] | None = None) -> "Figure":
    """Over layers: how far heads look, and what share of the weight goes to the class token."""
    places = list(range(len(strengths)) if numbers is None else numbers)
    keys = ["mean_distance", "entropy", "self_mass", "patch_to_cls"]
    first = next(iter(strengths.values()))
    keys = [key for key in keys if key in first.numbers()]
    figure = _figure(3.3 * len(keys), 2.8)
    for axis, key in zip(_row(figure, len(keys)), keys, strict=True):
        for layer, strength in zip(places, strengths.values(), strict=True):
            heads = strength.numbers()[key].mean(0)
            axis.scatter([layer] * len(heads), heads, s=12, color=SOFT)
        line = [float(s.numbers()[key].mean()) for s in strengths.values()]
        axis.plot(places, line, color=INK, label="mean of the heads")
        if key == "mean_distance":
            uniform = float(first.layout.distances().mean())
            axis.axhline(uniform, ls="--", lw=0.8, color="gray", label="uniform attention")
            axis.legend(frameon=False, fontsize=7)
        axis.set_title(key.replace("_", " "), fontsize=9, loc="left")
        axis.set_xlabel("layer", fontsize=8)
        axis.locator_params(axis="x", integer=True)
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
        axis.tick_params(labelsize=7)
    return _plain(figure)


def profile_trends(profiles: Mapping[str, Profile]) -> "Figure":
    """Over layers: entropy, largest weight, weight on itself and distance of every head."""
    keys = [key for key in NUMBERS if any(key in x.numbers() for x in profiles.values())]
    figure = _figure(3.1 * len(keys), 2.8)
    for axis, key in zip(_row(figure, len(keys)), keys, strict=True):
        for layer, profile in enumerate(profiles.values()):
            heads = profile.numbers().get(key, torch.zeros(0))
            axis.scatter([layer] * len(heads), heads, s=14, color=INK)
        axis.set_title(key.replace("_", " "), fontsize=9, loc="left")
        axis.set_xlabel("layer", fontsize=8)
        axis.set_xticks(range(len(profiles)))
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
        axis.tick_params(labelsize=7)
    return _plain(figure)


def mean_maps(maps: Mapping[str, Tensor]) -> "Figure":
    """Every head's mean weights, query by key."""
    heads = max(map(len, maps.values()))
    figure = _figure(0.8 + 1.5 * heads, 0.5 + 1.6 * len(maps))
    axes = figure.subplots(len(maps), heads, squeeze=False)
    for row, of_heads in zip(axes, maps.values(), strict=True):
        for head, axis in enumerate(row):
            axis.set(xticks=[], yticks=[])
            if head < len(of_heads):
                axis.imshow(of_heads[head].numpy(), cmap="magma", vmin=0, aspect="auto")
            else:
                axis.set_axis_off()
    for head, axis in enumerate(axes[0]):
        axis.set_title(f"head {head}", fontsize=7)
    for name, row in zip(maps, axes, strict=True):
        row[0].set_ylabel(name, fontsize=6)
    return figure


def offset_grid(
    strengths: Mapping[str, Strength], numbers: Sequence[int] | None = None
) -> "Figure":
    """Every head's mean weight by offset from the query, each on its own scale."""
    maps = [strength.offsets() for strength in strengths.values()]
    heads = max(map(len, maps))
    figure = _figure(0.6 + 0.9 * heads, 0.4 + 0.9 * len(maps))
    axes = figure.subplots(len(maps), heads, squeeze=False)
    for layer, of_heads in enumerate(maps):
        for head, axis in enumerate(axes[layer]):
            axis.set(xticks=[], yticks=[])
            if head < len(of_heads):
                axis.imshow(of_heads[head].numpy(), cmap="magma", vmin=0)
            else:
                axis.set_axis_off()
            if layer == 0:
                axis.set_title(f"head {head}", fontsize=7)
    _name_rows(axes, numbers)
    return figure


def cluster_maps(patterns: Patterns) -> "Figure":
    """For each cluster the mean map and its profile by offset."""
    clusters = patterns.clusters.unique().tolist()
    figure = _figure(1.5 * len(clusters), 3.2)
    axes = figure.subplots(2, len(clusters), squeeze=False)
    for column, cluster in enumerate(clusters):
        axes[0, column].imshow(patterns.mean_map(cluster).numpy(), cmap="magma", vmin=0)
        axes[1, column].imshow(patterns.offset_profile(cluster).numpy(), cmap="magma", vmin=0)
        axes[0, column].set_title(f"cluster {cluster}", fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("query by key", fontsize=7)
    axes[1, 0].set_ylabel("by offset", fontsize=7)
    return figure


def gallery(patterns: Patterns) -> "Figure":
    """Patterns decoded along the two principal axes of the codes."""
    maps = patterns.gallery()
    figure = _figure(4.5, 4.5)
    axes = figure.subplots(len(maps), len(maps))
    for row, line in zip(axes, maps, strict=True):
        for axis, one in zip(row, line, strict=True):
            axis.imshow(one.numpy(), cmap="magma")
            axis.set(xticks=[], yticks=[])
    return figure


def cluster_shares(patterns: Patterns, layers: Sequence[str]) -> "Figure":
    """Which clusters the maps of each layer fall in, stacked."""
    from matplotlib import colormaps

    table = patterns.table()
    clusters = patterns.clusters.unique().tolist()
    figure = _figure(5.6, 3.0)
    (axis,) = _row(figure, 1)
    below = torch.zeros(len(layers))
    for cluster in clusters:
        counts = torch.tensor(
            [table.filter(name=name, cluster=cluster).height for name in layers]
        ).float()
        share = counts / torch.tensor([max(table.filter(name=name).height, 1) for name in layers])
        color = colormaps["tab10"](cluster)
        axis.bar(range(len(layers)), share, bottom=below, color=color, label=f"cluster {cluster}")
        below = below + share
    axis.set(xlabel="layer", ylabel="share of maps", xticks=range(len(layers)))
    axis.legend(frameon=False, fontsize=7, bbox_to_anchor=(1, 1), loc="upper left")
    return _plain(figure)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(max(width, 2.5), max(height, 1.8)), layout="constrained")


def _row(figure: "Figure", count: int) -> list:
    return list(figure.subplots(1, count, squeeze=False)[0])


def _name_rows(axes: Any, numbers: Sequence[int] | None) -> None:
    for row, number in zip(axes, numbers or range(len(axes)), strict=True):
        row[0].set_ylabel(f"{number}", fontsize=8, rotation=0, labelpad=8)


def _plain(figure: "Figure") -> "Figure":
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure
