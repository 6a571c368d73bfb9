"""From a model and images to numbers: importance, strength and patterns of every head."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from core_attn.analysis import (
    PARTS,
    Bench,
    HeadImportance,
    PartialPruning,
    Patterns,
    Sites,
    Strength,
    applicable,
    attention_strength,
    find_patterns,
    gradient_importance,
    head_importance,
    partial_importance,
    pruning_curve,
    sample_maps,
    strength_table,
)

from .subject import Picture, Subject, batches

VIEWS = ("importance", "strength", "patterns")
NOISY = 50


@dataclass(frozen=True)
class Analysis:
    """What was found; views that were not asked for are None.

    Attributes:
        heads: a row per head: importance metrics with their intervals, and strengths.
        importance: image by image.
        curve: what is lost as heads go, in three orders.
        parts: for the most important heads, what is lost under partial pruning.
        strengths: per layer.
        patterns: codes and clusters of maps.
        metric: by which heads were ranked.
    """

    heads: pl.DataFrame
    importance: HeadImportance | None = None
    curve: pl.DataFrame | None = None
    parts: Mapping[str, pl.DataFrame] | None = None
    strengths: Mapping[str, Strength] | None = None
    patterns: Patterns | None = None
    metric: str = ""


def run(
    subject: Subject,
    pictures: Sequence[Picture],
    *,
    views: Sequence[str] = VIEWS,
    metric: str | None = None,
    layers: Sequence[int] | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Analysis:
    """The same numbers as the command's, as data frames.

    Args:
        subject: the model.
        pictures: the images.
        views: any of "importance", "strength" and "patterns".
        metric: by which heads are ranked; by default "prob_drop", or "output_change" for a model
            without classes.
        layers: numbers of the layers to look at, from 0; all by default.
        batch_size: images run at once.
        device: where.
        seed: of the controls, the intervals and the autoencoder.
        say: told what is done, and what it will cost.

    Raises:
        ValueError: an unknown view or layer, no images at once, or attention that these views are
            not defined for.
    """
    if wrong := set(views) - set(VIEWS):
        raise ValueError(f"no view {sorted(wrong)[0]!r}; views: {', '.join(VIEWS)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    model, sites = subject.model.to(device), subject.sites
    names = list(sites)
    for number in layers or ():
        if not 0 <= number < len(names):
            raise ValueError(f"layer {number} is not among the layers 0 to {len(names) - 1}")
    chosen = names if layers is None else [names[number] for number in layers]
    labels = [picture.label for picture in pictures]

    def inputs() -> Iterator[Tensor]:
        return (x.to(device) for x in batches(pictures, batch_size))

    some = Sites({name: sites[name] for name in chosen})
    frames: list[pl.DataFrame] = []
    found: dict = {}
    if "strength" in views:
        say(f"strength: {-(-len(pictures) // batch_size)} passes")
        found["strengths"] = attention_strength(model, inputs(), subject.layout, some)
        frames.append(strength_table(found["strengths"]))
    if "importance" in views:
        known = [None] * len(pictures)
        if None not in labels:
            known = torch.tensor(labels, device=device).split(batch_size)
        labeled = list(zip(inputs(), known, strict=False))  # they are run many times
        found |= _importance(subject, labeled, chosen, metric, seed, say)
        frames.append(_wide(found["importance"].table(seed=seed)))
    if "patterns" in views:
        sample = sample_maps(model, inputs(), subject.layout, some, images=len(pictures))
        start = time.perf_counter()

        def cost(done: int, total: int) -> None:
            if done == 1:
                left = (total - 1) * (time.perf_counter() - start)
                say(f"patterns: an autoencoder over {len(sample.owners)} maps, about {left:.0f} s")

        found["patterns"] = find_patterns(sample, seed=seed, progress=cost)
        frames.append(found["patterns"].consistency())
    heads = frames[0]
    for frame in frames[1:]:
        extra = [name for name in frame.columns if name not in ("layer",)]
        heads = heads.join(frame.select(extra), on=["name", "head"], how="full", coalesce=True)
    order = {name: number for number, name in enumerate(names)}
    heads = heads.with_columns(pl.col("name").replace_strict(order).alias("layer"))
    first = ["layer", "head", "name"]
    heads = heads.select(*first, pl.exclude(first)).sort("layer", "head")
    return Analysis(heads=heads, **found)


def _importance(
    subject: Subject,
    batches: Sequence[tuple[Tensor, Tensor | None]],
    layers: Sequence[str],
    metric: str | None,
    seed: int,
    say: Callable[[str], None],
) -> dict:
    bench = Bench(subject.model, batches)
    once, heads = bench.seconds(), bench.cost(layers)
    whole = bench.outcome(batches[0][0])
    others = 5 * 10 + 3 * 2 * (len(PARTS) + 1) + 3  # orders of the curve, parts of heads, gradients
    say(
        f"importance: {(heads + others) * len(batches)} passes, "
        f"about {(0.6 * heads + others) * once:.0f} s with restarts"
    )
    images = sum(len(x) for x, _ in batches)
    if images < NOISY:
        say(f"{images} images are few: mind the intervals ({NOISY} or more tell heads apart)")
    allowed = applicable(whole, bench.target(batches[0][1], whole))
    classes = "prob_drop" in allowed
    metric = metric or ("prob_drop" if classes else "output_change")
    if metric not in allowed:
        raise ValueError(f"no metric {metric!r} here; metrics: {', '.join(allowed)}")
    found = head_importance(bench, layers=layers)
    if classes and len(layers) == len(bench.sites):
        cheap = gradient_importance(bench).values["gradient"]
        found = HeadImportance(
            found.layers, {**found.values, "gradient": cheap}, found.labels, found.base
        )
    ranking = found.ranking(metric)
    left = "accuracy" if classes else metric
    curve = pruning_curve(bench, ranking, metric=left, seed=seed)
    cuts = [PartialPruning(part) for part in PARTS]
    parts = {
        f"{name}, head {head}": partial_importance(bench, (name, head), subject.layout, cuts)
        for name, head in ranking[:-4:-1]
    }
    return {"importance": found, "curve": curve, "parts": parts, "metric": metric}


def _wide(table: pl.DataFrame) -> pl.DataFrame:
    wide = table.pivot("metric", index=["name", "head"], values=["mean", "low", "high"])
    return wide.rename(
        {
            column: column.removeprefix("mean_")
            for column in wide.columns
            if column.startswith("mean_")
        }
    )
