"""`paths`: how much each attention layer and MLP gives the classifier of a trained model."""

import csv
import operator
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from core_attn.training import data_folder, opened

from .data.image_data import ImageData
from .data.image_folder import ImageFiles
from .data.reading import picture_files, readable
from .models.path_ensemble import PathEnsemble, greedy_pruning
from .tasks.classification import ImageClassification

FIELDS = ("path", "loss without", "change of loss", "accuracy without", "pruned")


def rank_paths(
    ckpt: str,
    folder: str | None = None,
    output: str = "paths",
    most: int | None = None,
    batch_size: int = 64,
) -> str:
    """Ranks all paths of a checkpoint, prunes greedily, and writes a table and a bar chart.

    Every second image is to choose on; the others judge what pruning gives.

    Args:
        ckpt: of an image classification whose network adds its branches up.
        folder: images in one folder per class; the test images of the run's data if None.
        output: the files written, without their ends: .csv and .png.
        most: how many paths are pruned at most.
        batch_size: images at once.

    Returns:
        What was found, in a few lines.

    Raises:
        TypeError: the network's classifier does not read a sum of paths.
        ValueError: the checkpoint is not of images, there are too few or unknown ones, or `most` is
            negative.
    """
    if most is not None and most < 0:
        raise ValueError(f"most must be at least 0, got {most}")
    found = opened(ckpt, None if folder else "test")
    task, data = found.task, found.data
    if not isinstance(data, ImageData):
        raise ValueError(f"{ckpt} is of {type(data).__name__}, not of images")
    names = found.content["class_names"]
    images = data.test_set if folder is None else _labelled(folder, names, data)
    count = len(images)  # pyright: ignore[reportArgumentType]
    if count < 4:
        raise ValueError(f"there must be at least 4 images, half of them to judge on; got {count}")
    if not isinstance(task, ImageClassification):
        raise ValueError(f"{ckpt} is of {type(task).__name__}, not of an image classification")
    ensemble = PathEnsemble(task.network, scale=None)
    choose, judge = (
        [*DataLoader(Subset(images, range(start, count, 2)), batch_size)] for start in (0, 1)
    )
    everything, labels = _kept(ensemble, choose)
    masks = 1 - torch.eye(len(ensemble.names))
    before, right = _measured(ensemble, everything, labels, ensemble.path_mask)
    each = [_measured(ensemble, everything, labels, mask) for mask in masks]
    del everything
    pruned = [name for name, _ in greedy_pruning(ensemble, choose, most)[1:]]
    rows: list[list] = [
        [name, loss, loss - before, accuracy, name in pruned]
        for name, (loss, accuracy) in zip(ensemble.names, each, strict=True)
    ]
    target = Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    ranked = sorted(rows, key=operator.itemgetter(1))
    with target.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([FIELDS, *ranked])
    _draw(ensemble.names, [row[2] for row in rows], pruned, target.with_suffix(".png"))
    others, answers = _kept(ensemble, judge)
    whole, share = _measured(ensemble, others, answers, torch.ones(len(ensemble.names)))
    less, fewer = _measured(ensemble, others, answers, ensemble.path_mask)
    return "\n".join(
        [
            f"{target}.csv and .png: {len(rows)} paths, chosen on {len(labels)} images (all paths: "
            f"loss {before:.4f}, accuracy {right:.2%})",
            f"pruned: {', '.join(pruned) or 'none: every path helps'}",
            f"need not be computed: {', '.join(ensemble.idle()) or 'none'}",
            f"judged on {len(answers)} other images: loss {whole:.4f} -> {less:.4f}, "
            f"accuracy {share:.2%} -> {fewer:.2%}",
        ]
    )


def _labelled(folder: str, names: Sequence[str], data: ImageData) -> Dataset:
    """The pictures of a folder per class.

    Raises:
        ValueError: a class is not one of the checkpoint's.
    """
    root = data_folder(folder, "*/*")
    paths = readable([p for p in picture_files(root) if p.parent != root], folder)
    classes = [path.relative_to(root).parts[0] for path in paths]
    strange = sorted(set(classes) - set(names))
    if strange:
        raise ValueError(f"{folder} has classes that the checkpoint does not know: {strange}")
    labels = [list(names).index(name) for name in classes]
    return ImageFiles(paths, labels, data.evaluation_transform(), data.channels)


@torch.no_grad()
def _kept(
    ensemble: PathEnsemble, batches: Iterable[Sequence[Tensor]]
) -> tuple[Float[Tensor, "paths images tokens dim"], Int[Tensor, " images"]]:
    """What the classifier reads of every path, and the labels."""
    kept, labels = [], []
    for images, classes in batches:
        kept.append(torch.stack(ensemble.read_paths(images)))
        labels.append(classes)
    return torch.cat(kept, 1), torch.cat(labels)


@torch.no_grad()
def _measured(
    ensemble: PathEnsemble, paths: Tensor, labels: Tensor, mask: Tensor
) -> tuple[float, float]:
    """Mean loss and accuracy with the paths that a mask leaves."""
    scores = ensemble.classified(ensemble.combined(list(paths), mask))
    right = (scores.argmax(-1) == labels).float().mean()
    return float(F.cross_entropy(scores, labels)), float(right)


def _draw(names: Sequence[str], changes: Sequence[float], pruned: Sequence[str], path: Path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.22 * len(names) + 1), layout="constrained")
    axis = figure.subplots()
    colors = ["#c0392b" if name in pruned else "#1f77b4" for name in names]
    axis.barh(range(len(names)), changes, color=colors)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.invert_yaxis()
    axis.axvline(0, color="black", lw=0.8)
    axis.set_xlabel("change of the loss without the path (red: pruned)")
    figure.savefig(path, dpi=150)
