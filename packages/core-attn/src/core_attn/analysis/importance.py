"""Which heads matter: what is lost when they are taken out."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .bench import Bench, Head
from .metrics import Outcome, applicable, bootstrap, measure
from .restart import Chain


@dataclass(frozen=True)
class HeadImportance:
    """The importance of every head, image by image.

    Attributes:
        layers: names, first to last.
        values: for each metric, (images, layers, heads); NaN where a layer has fewer heads.
        labels: of the images; the predicted classes where none were given.
        base: what the whole model said; None where only its loss is known.
    """

    layers: tuple[str, ...]
    values: Mapping[str, Float[Tensor, "images layers heads"]]
    labels: Int[Tensor, " images"] | None
    base: Outcome | None

    def table(self, *, resamples: int = 1000, seed: int = 0) -> pl.DataFrame:
        """One row per head and metric: `layer`, `name`, `head`, `metric`, `mean`, `low`, `high`.

        `layer` counts from 0; `low` and `high` bound the mean with 95 %, by resampling images; of
        a single number they are null.
        """
        rows = []
        for metric, values in self.values.items():
            mean = values.mean(0)
            low, high = None, None
            if len(values) > 1:
                low, high = bootstrap(values, resamples=resamples, seed=seed)
            for layer, name in enumerate(self.layers):
                for head in range(values.shape[2]):
                    if not mean[layer, head].isnan():
                        cells = (
                            None if x is None else float(x[layer, head]) for x in (mean, low, high)
                        )
                        rows.append((layer, name, head, metric, *cells))
        columns = ["layer", "name", "head", "metric", "mean", "low", "high"]
        return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)

    def ranking(self, metric: str) -> list[Head]:
        """The heads from the least to the most important.

        Raises:
            ValueError: that was not measured.
        """
        if metric not in self.values:
            raise ValueError(f"no metric {metric!r} here; metrics: {', '.join(self.values)}")
        means = self.values[metric].mean(0)
        heads = [
            (float(means[i, j]), name, j)
            for i, name in enumerate(self.layers)
            for j in range(means.shape[1])
            if not means[i, j].isnan()
        ]
        return [(name, head) for _, name, head in sorted(heads, key=lambda row: row[0])]

    def rank_correlation(self) -> pl.DataFrame:
        """Spearman's correlation of the metrics over heads: a column per metric, and `metric`.

        NaN where a metric is the same for all heads.
        """
        names = list(self.values)
        means = torch.stack([self.values[name].mean(0).flatten() for name in names])
        frame = pl.DataFrame({name: row.tolist() for name, row in zip(names, means, strict=True)})
        ranks = frame.fill_nan(None).drop_nulls().select(pl.all().rank())
        with np.errstate(invalid="ignore", divide="ignore"):
            return pl.DataFrame({"metric": names}).hstack(ranks.corr())


def head_importance(
    bench: Bench,
    *,
    scheme: Literal["leave_one_out", "only_one"] = "leave_one_out",
    metrics: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> HeadImportance:
    """Removes heads one by one and measures what is lost.

    Every run starts at the block of the changed layer, from what entered it in the whole model,
    where the model's blocks form a chain: half the work on average.

    Args:
        bench: the model and its images.
        scheme: "leave_one_out" removes one head; "only_one" all others of its layer.
        metrics: names of `metrics.measure`; by default all that the output allows.
        layers: names; all by default.
        progress: called with the runs done and their total.

    Raises:
        ValueError: an unknown scheme, metric or layer, or an output that is NaN or infinite.

    Source: Li et al., 2023, arXiv 2303.13731, view B; definitions are this project's.

    Example:
        >>> import core_attn
        >>> model = nn.Sequential(core_attn.MultiHeadAttention(8, heads=2)).eval()
        >>> bench = Bench(model, [(torch.randn(3, 4, 8), None)])
        >>> head_importance(bench).values["output_change"].shape
        torch.Size([3, 1, 2])
    """
    if scheme not in ("leave_one_out", "only_one"):
        raise ValueError(f"scheme must be 'leave_one_out' or 'only_one', got {scheme!r}")
    names = tuple(bench.sites if layers is None else layers)
    if unknown := [name for name in names if name not in bench.sites]:
        raise ValueError(f"no layer is named {unknown[0]!r}; layers: {', '.join(bench.sites)}")
    runs = [
        (name, head, [head] if scheme == "leave_one_out" else _others(head, bench.num_heads[name]))
        for name in names
        for head in range(bench.num_heads[name])
    ]
    chain = Chain(bench.model, bench.sites)
    images = sum(len(inputs) for inputs, _ in bench.batches)
    widest = max(bench.num_heads[name] for name in names)
    base, known, values = [], [], {}
    for number, (inputs, labels) in enumerate(bench.batches):
        with chain.caching():
            whole = bench.outcome(inputs)
        first = sum(len(x) for x, _ in bench.batches[:number])
        if len(bad := (~whole.output.flatten(1).isfinite().all(1)).nonzero()):
            raise ValueError(
                f"the model's output on image {first + int(bad[0])} is NaN or infinite"
            )
        if number == 0 and not chain.holds(lambda x=inputs: bench.outcome(x).output, whole.output):
            chain.block_of.clear()
        labels = bench.target(labels, whole)
        base.append(whole)
        known.append(labels)
        wanted = metrics or applicable(whole, labels)
        for done, (name, head, gone) in enumerate(runs):
            start = chain.restarted(chain.block_of[name]) if chain.block_of else nullcontext()
            with start, bench.removed((name, head) for head in gone):
                changed = bench.outcome(inputs)
            for metric in wanted:
                if metric not in values:
                    values[metric] = torch.full((images, len(names), widest), torch.nan)
                lost = measure(metric, whole, changed, labels)
                values[metric][first : first + len(inputs), names.index(name), head] = lost
            progress(number * len(runs) + done + 1, len(bench.batches) * len(runs))
    labels = None if any(x is None for x in known) else torch.cat(known)
    return HeadImportance(names, values, labels, Outcome.joined(base))


def gradient_importance(
    bench: Bench, loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy
) -> HeadImportance:
    """The cheap stand-in: |d loss / d mask| per image at a mask of 1 on every head; one backward.

    Args:
        bench: the model and its images; labels, or the predicted classes, enter the loss.
        loss: a mean over samples.

    Example:
        >>> import core_attn
        >>> model = nn.Sequential(core_attn.MultiHeadAttention(8, heads=2)).eval()
        >>> bench = Bench(model, [(torch.randn(3, 4, 8), None)])
        >>> gradient_importance(bench, lambda y, _: y.square().mean()).values["gradient"].shape
        torch.Size([3, 1, 2])
    """
    widest = max(bench.num_heads.values())
    found, base = [], []
    for inputs, labels in bench.batches:
        masks = {
            name: torch.ones(len(inputs), 1, count, 1, requires_grad=True, device=inputs.device)
            for name, count in bench.num_heads.items()
        }
        edits = {name: (lambda x, mask=mask: x * mask) for name, mask in masks.items()}
        with torch.enable_grad(), bench.sites.edit("heads", edits):
            output = bench.model(inputs)
            target = output.argmax(-1) if labels is None else labels
            grads = torch.autograd.grad(loss(output, target) * len(inputs), list(masks.values()))
        cells = {
            (name, head): grad[:, 0, head, 0].abs()
            for name, grad in zip(masks, grads, strict=True)
            for head in range(grad.shape[2])
        }
        found.append(_grid(cells, tuple(masks), widest))
        base.append(Outcome(output.detach()))
    return HeadImportance(
        tuple(bench.sites), {"gradient": torch.cat(found)}, None, Outcome.joined(base)
    )


def _others(head: int, total: int) -> list[int]:
    return [other for other in range(total) if other != head]


def _grid(
    cells: Mapping[Head, Float[Tensor, " images"]], names: tuple[str, ...], heads: int
) -> Float[Tensor, "images layers heads"]:
    images = len(next(iter(cells.values())))
    grid = torch.full((images, len(names), heads), torch.nan)
    for (name, head), values in cells.items():
        grid[:, names.index(name), head] = values.float().cpu()
    return grid
