"""The page of an analysis."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from core_attn.analysis import figures
from core_attn.analysis.page import Dots, Picker, Section, write_page

from .subject import Picture, Subject

SHOWN_IMAGES, SHOWN_HEADS = 6, 8


def write_pages(
    path: Path,
    subject: Subject,
    pictures: Sequence[Picture],
    found: Any,
    facts: Mapping[str, Any],
    query: int,
) -> None:
    """Writes the interactive page about an `Analysis`.

    Args:
        path: the file.
        subject: the model.
        pictures: its images.
        found: the analysis.
        facts: what stands at the top.
        query: the patch that is shown first.
    """
    sections, dots, layers = [], [], list(subject.sites)
    if found.importance is not None:
        sections.append(_importance(found, layers))
        dots += _drops(found, pictures)
    if found.strengths is not None:
        sections.append(_strength(found, layers))
    if found.patterns is not None:
        section, plot = _patterns(found, layers)
        sections.append(section)
        dots.append(plot)
    write_page(
        path,
        title=f"Attention of {subject.name}",
        facts={
            "Checkpoint": subject.source,
            "Images": "; ".join(
                [f"{len(pictures)}, {len(facts['skipped'])} could not be read", *facts["notes"]]
            ),
            "Tokens": f"{subject.layout.grid[0]}x{subject.layout.grid[1]} patches and "
            f"{subject.layout.prefix} before them",
            "Heads ranked by": found.metric or "not ranked",
            "Seed": str(facts["seed"]),
        },
        thumbnails=[(_said(picture, subject), picture.thumbnail) for picture in pictures],
        heads=found.heads,
        sections=sections,
        dots=dots,
        picker=_picker(subject, pictures, found, query),
    )


def _said(picture: Picture, subject: Subject) -> str:
    if picture.label is None:
        return picture.path.name
    names = subject.class_names
    label = names[picture.label] if names else str(picture.label)
    return f"{picture.path.name}, {label}"


def _importance(found: Any, layers: Sequence[str]) -> Section:
    section = Section(
        "Which heads matter",
        "A head is removed by setting its output to 0 before the output projection. Definitions of "
        "the metrics are this project's; the intervals in the table are 95 % over images.",
    )
    numbers = [layers.index(name) for name in found.importance.layers]
    section.figures.append(
        ("Every head, every metric", "Red: something is lost without the head; blue: gained.",
         figures.importance_maps(found.importance, numbers)),
    )  # fmt: skip
    if len(found.importance.values) > 1:
        section.figures.append(
            ("Do the metrics agree?", "Rank correlation over heads.",
             figures.correlations(found.importance.rank_correlation())),
        )  # fmt: skip
    left = "accuracy" if "prob_drop" in found.importance.values else found.metric
    section.figures.append(
        ("Does the ranking mean something?", "It does if the three orders lie apart: heads said to "
         "matter least can go first at little loss.", figures.curve(found.curve, left)),
    )  # fmt: skip
    section.figures.append(
        ("Why the most important heads matter", "What is lost when parts of a head's weights are 0 "
         "(not renormalized); near: other patches within one hop.",
         figures.partial_bars(found.parts, found.metric)),
    )  # fmt: skip
    return section


def _drops(found: Any, pictures: Sequence[Picture]) -> list[Dots]:
    drops = found.importance.values.get("prob_drop")
    if drops is None:
        return []
    labels = found.importance.labels
    base = found.importance.base.output.softmax(-1).gather(1, labels[:, None])[:, 0]
    plots = []
    for name, head in found.importance.ranking(found.metric)[:-3:-1]:
        after = base - drops[:, found.importance.layers.index(name), head]
        plots.append(
            Dots(
                f"Without {name}, head {head}",
                "Probability of the class with all heads and without this one; below the line "
                "something is lost. Click on a dot to see its image above.",
                ("with all heads", "without"),
                [
                    (float(x), float(y), 0, f"{picture.path.name}: {x:.2f} -> {y:.2f}", number)
                    for number, (x, y, picture) in enumerate(
                        zip(base, after, pictures, strict=True)
                    )
                ],
                diagonal=True,
            )
        )
    return plots


def _strength(found: Any, layers: Sequence[str]) -> Section:
    section = Section(
        "How far heads look",
        "Distances are in patches. A ring of a border patch has fewer cells, which the mean weight "
        "per pair corrects for.",
    )
    numbers = [layers.index(name) for name in found.strengths]
    tint, tinted = None, ""
    if found.importance is not None:
        tint = found.importance.values[found.metric].mean(0)
        tinted = "; tinted by importance: red matters"
    section.figures += [
        ("Over depth", "One dot per head.", figures.trends(found.strengths, numbers)),
        ("Weight at each distance", f"Mean weight of a pair of patches over hops{tinted}.",
         figures.hop_lines(found.strengths, "khop_mean", tint, numbers)),
        ("Weight by offset", "Where a head looks from the patch in the center, mean over images.",
         figures.offset_grid(found.strengths, numbers)),
    ]  # fmt: skip
    return section


def _patterns(found: Any, layers: Sequence[str]) -> tuple[Section, Dots]:
    patterns = found.patterns
    section = Section(
        "Which patterns heads have",
        "An autoencoder describes every map by 16 numbers; k-means puts them in clusters. Kinds in "
        "the table of heads (self, local ring, row, …) come from rules on the weights.",
    )
    section.figures += [
        ("The clusters", "Mean map (query by key, in raster order) and mean by offset.",
         figures.cluster_maps(patterns)),
        ("Clusters over depth", "Share of the maps of each layer.",
         figures.cluster_shares(patterns, layers)),
        ("Patterns that could be", "Decoded along the two principal axes of the codes.",
         figures.gallery(patterns)),
    ]  # fmt: skip
    numbers = {name: number for number, name in enumerate(layers)}
    points = [
        (float(x), float(y), int(cluster), f"{numbers[name]}.{head}: {kind}, image {image}", image)
        for (name, head, image), kind, cluster, (x, y) in zip(
            patterns.sample.owners, patterns.sample.kinds, patterns.clusters, patterns.places,
            strict=True,
        )
    ]  # fmt: skip
    if len(points) > 1500:
        points = points[:: -(-len(points) // 1500)]
    caption = "Every dot is a head on an image, colored by cluster; near dots are alike."
    return section, Dots("Maps", caption, ("first axis", "second axis"), points)


@torch.no_grad()
def _picker(subject: Subject, pictures: Sequence[Picture], found: Any, query: int) -> Picker | None:
    if subject.layout.patches > 1024:
        return None
    sites = subject.sites
    if found.importance is not None:
        heads = found.importance.ranking(found.metric)[: -SHOWN_HEADS - 1 : -1]
    else:
        every = [(name, head) for name, site in sites.items() for head in range(site.num_heads)]
        step = max(1, len(every) // SHOWN_HEADS)
        heads = every[::step][:SHOWN_HEADS]
    shown = list(range(min(SHOWN_IMAGES, len(pictures))))
    device = next(subject.model.parameters()).device
    inputs = torch.stack([pictures[number].input for number in shown]).to(device)
    with sites.record("pattern") as seen:
        subject.model(inputs)
    prefix = subject.layout.prefix
    maps = torch.stack([seen[name][:, head, prefix:, prefix:] for name, head in heads], 1)
    names = list(sites)
    said = [f"{names.index(name)}.{head}" for name, head in heads]
    return Picker(subject.layout.grid, shown, said, maps.float().cpu(), query)
