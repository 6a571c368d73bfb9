"""Which heads matter: what is lost when they, or parts of what they look at, are taken out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .metrics import Outcome, applicable, bootstrap, measure
from .restart import Chain
from .sites import Sites, find_sites
from .strength import Layout

Batch = tuple[Tensor, Tensor | None]
Head = tuple[str, int]
PARTS = ("class_to_patches", "patches_to_class", "patches_to_patches", "self", "near", "far")


@dataclass(frozen=True)
class HeadImportance:
    """The importance of every head, image by image.

    Attributes:
        layers: names, first to last.
        values: for each metric, (images, layers, heads); NaN where a layer has fewer heads.
        labels: of the images; the predicted classes where none were given.
        base: what the whole model said.
    """

    layers: tuple[str, ...]
    values: Mapping[str, Float[Tensor, "images layers heads"]]
    labels: Int[Tensor, " images"] | None
    base: Outcome

    def table(self, *, resamples: int = 1000, seed: int = 0) -> pl.DataFrame:
        """One row per head and metric: `layer`, `name`, `head`, `metric`, `mean`, `low`, `high`.

        `layer` counts from 0; `low` and `high` bound the mean with 95 %, by resampling images.
        """
        rows = []
        for metric, values in self.values.items():
            low, high = bootstrap(values, resamples=resamples, seed=seed)
            mean = values.mean(0)
            for layer, name in enumerate(self.layers):
                for head in range(values.shape[2]):
                    if not mean[layer, head].isnan():
                        cells = (float(x[layer, head]) for x in (mean, low, high))
                        rows.append((layer, name, head, metric, *cells))
        columns = ["layer", "name", "head", "metric", "mean", "low", "high"]
        return pl.DataFrame(rows, schema=columns, orient="row")

    def ranking(self, metric: str) -> list[Head]:
        """The heads from the least to the most important."""
        means = self.values[metric].mean(0)
        heads = [
            (float(means[i, j]), name, j)
            for i, name in enumerate(self.layers)
            for j in range(means.shape[1])
            if not means[i, j].isnan()
        ]
        return [(name, head) for _, name, head in sorted(heads, key=lambda row: row[0])]

    def rank_correlation(self) -> pl.DataFrame:
        """Spearman's correlation of the metrics over heads: a column per metric, and `metric`."""
        names = list(self.values)
        means = torch.stack([self.values[name].mean(0).flatten() for name in names])
        frame = pl.DataFrame({name: row.tolist() for name, row in zip(names, means, strict=True)})
        ranks = frame.fill_nan(None).drop_nulls().select(pl.all().rank())
        return pl.DataFrame({"metric": names}).hstack(ranks.corr())


class Bench:
    """A model, what is run through it, and what it said as a whole.

    Args:
        model: any model with attention sites; put into evaluation mode by the caller.
        batches: pairs of inputs (images, …) and labels, or None: then the predicted class.
        sites: its attention layers; found by default.
        classifier: the name of the module whose input is the feature; None for no feature. Where
            it does nothing, or there is none, the output is no score of classes.

    Raises:
        ValueError: no batches, or an output that is not a tensor of one row per input.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        *,
        sites: Sites | None = None,
        classifier: str | None = "head",
    ):
        self.model, self.sites = model, find_sites(model) if sites is None else sites
        self.batches = list(batches)
        if not self.batches:
            raise ValueError("no images: importance needs at least one")
        known = dict(model.named_modules())
        self.classifier = known.get(classifier) if classifier else None
        self.num_heads = {name: site.num_heads for name, site in self.sites.items()}

    @torch.no_grad()
    def outcome(self, inputs: Tensor) -> Outcome:
        """Runs the model as it is now."""
        seen: list[Tensor] = []
        classifier = self.classifier
        handle = classifier and classifier.register_forward_pre_hook(
            lambda _m, args: seen.append(args[0])
        )
        try:
            output = self.model(inputs)
        finally:
            if handle:
                handle.remove()
        if not isinstance(output, Tensor) or len(output) != len(inputs):
            raise ValueError("the model must give a tensor with one row per input")
        feature = seen[-1] if seen and seen[-1].dim() == 2 else None
        return Outcome(output.float(), feature)

    def target(self, labels: Tensor | None, whole: Outcome) -> Tensor | None:
        """The labels, or else the predicted classes; None where the model has no classes."""
        has_classes = self.classifier is not None and not isinstance(self.classifier, nn.Identity)
        if not has_classes or whole.output.dim() != 2:
            return None
        return whole.output.argmax(-1) if labels is None else labels

    @contextmanager
    def removed(self, heads: Iterable[Head]) -> Iterator[None]:
        """While open, the outputs of these heads are 0 before the projection."""
        gone: dict[str, list[int]] = {}
        for name, head in heads:
            if name not in self.sites:
                raise ValueError(f"no layer is named {name!r}; layers: {', '.join(self.sites)}")
            if not 0 <= head < self.num_heads[name]:
                raise ValueError(f"{name} has heads 0 to {self.num_heads[name] - 1}, not {head}")
            gone.setdefault(name, []).append(head)
        with self.sites.edit("heads", {name: without(which) for name, which in gone.items()}):
            yield

    def cost(self, layers: Sequence[str] | None = None) -> int:
        """Forward passes, each counted as whole, that `leave_one_out` makes per batch."""
        chosen = self.sites if layers is None else layers
        return 1 + sum(self.num_heads[name] for name in chosen)


def without(heads: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """A change of (batch, tokens, heads, dim) that sets some heads to 0."""

    def change(x: Tensor) -> Tensor:
        keep = x.new_ones(x.shape[-2])
        keep[list(heads)] = 0
        return x * keep[:, None]

    return change


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
        ValueError: an unknown scheme, metric or layer.

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
    base, known, parts = [], [], {}
    for number, (inputs, labels) in enumerate(bench.batches):
        with chain.caching():
            whole = bench.outcome(inputs)
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
                lost = measure(metric, whole, changed, labels)
                parts.setdefault(metric, {}).setdefault((name, head), []).append(lost)
            progress(number * len(runs) + done + 1, len(bench.batches) * len(runs))
    widest = max(bench.num_heads[name] for name in names)
    values = {
        metric: _grid({head: torch.cat(lost) for head, lost in of_head.items()}, names, widest)
        for metric, of_head in parts.items()
    }
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


@dataclass(frozen=True)
class PartialPruning:
    """Which weights of a head are set to 0.

    Attributes:
        part: "class_to_patches" and "patches_to_class" (all prefix tokens count as class),
            "patches_to_patches", "self" (a patch to itself), "near" (other patches within
            `reach`, in Chebyshev distance) or "far" (beyond it).
        reach: in patches.
        renormalize: whether rows sum to 1 again afterwards.
    """

    part: str
    reach: int = 1
    renormalize: bool = False

    def __post_init__(self):
        if self.part not in PARTS:
            raise ValueError(f"part must be one of {', '.join(PARTS)}, got {self.part!r}")

    def change(self, layout: Layout, head: int) -> Callable[[Tensor], Tensor]:
        """The change of (batch, heads, tokens, tokens)."""
        patch = torch.zeros(layout.tokens, dtype=torch.bool)
        patch[layout.prefix :] = True
        both = patch[:, None] & patch[None, :]
        distance = torch.full((layout.tokens, layout.tokens), -1)
        distance[both] = layout.hops().flatten()
        gone = {
            "class_to_patches": ~patch[:, None] & patch[None, :],
            "patches_to_class": patch[:, None] & ~patch[None, :],
            "patches_to_patches": both,
            "self": distance == 0,
            "near": (distance > 0) & (distance <= self.reach),
            "far": distance > self.reach,
        }[self.part]

        def change(weights: Tensor) -> Tensor:
            one = weights[:, head].masked_fill(gone.to(weights.device), 0)
            if self.renormalize:
                one = one / one.sum(-1, keepdim=True).clamp(min=1e-12)
            weights = weights.clone()
            weights[:, head] = one
            return weights

        return change


def partial_importance(
    bench: Bench, head: Head, layout: Layout, prunings: Sequence[PartialPruning]
) -> pl.DataFrame:
    """What is lost when parts of one head's weights are 0: rows `part`, `metric`, `mean`.

    The row "whole head" is its removal.

    Example:
        >>> import core_attn
        >>> model = nn.Sequential(core_attn.MultiHeadAttention(8, heads=2)).eval()
        >>> bench = Bench(model, [(torch.randn(3, 5, 8), None)])
        >>> parts = [PartialPruning("self"), PartialPruning("far")]
        >>> partial_importance(bench, ("0", 1), Layout((2, 2), prefix=1), parts)["part"].to_list()
        ['self', 'far', 'whole head']
    """
    name, index = head
    scopes: list[tuple[str, Callable[[], AbstractContextManager[None]]]] = [
        (cut.part, partial(bench.sites.edit, "pattern", {name: cut.change(layout, index)}))
        for cut in prunings
    ]
    scopes.append(("whole head", partial(bench.removed, [head])))
    rows = []
    for part, scope in scopes:
        lost: dict[str, list[Tensor]] = {}
        for inputs, labels in bench.batches:
            whole = bench.outcome(inputs)
            labels = bench.target(labels, whole)
            with scope():
                changed = bench.outcome(inputs)
            for metric in applicable(whole, labels):
                lost.setdefault(metric, []).append(measure(metric, whole, changed, labels))
        rows += [(part, metric, float(torch.cat(x).mean())) for metric, x in lost.items()]
    return pl.DataFrame(rows, schema=["part", "metric", "mean"], orient="row")


def pruning_curve(
    bench: Bench,
    ranking: Sequence[Head],
    *,
    metric: str,
    steps: Sequence[int] | None = None,
    random_orders: int = 3,
    seed: int = 0,
) -> pl.DataFrame:
    """What is lost as more and more heads go: rows `order`, `draw`, `removed`, `mean`.

    A ranking that means something loses least in the order "least important first", most in
    "most important first", and lies between in random order.

    Args:
        bench: the model and its images.
        ranking: heads, least important first.
        metric: of `metrics.measure`; "accuracy" for the accuracy that is left.
        steps: how many heads are gone at each point; by default about ten points.
        random_orders: draws of the control.
        seed: of the control.

    Example:
        >>> import core_attn
        >>> model = nn.Sequential(core_attn.MultiHeadAttention(8, heads=4)).eval()
        >>> bench = Bench(model, [(torch.randn(3, 4, 8), None)])
        >>> heads = head_importance(bench).ranking("output_change")
        >>> pruning_curve(bench, heads, metric="output_change", steps=[0, 2]).height
        10
    """
    total = len(ranking)
    if steps is None:
        steps = sorted({round(total * i / 10) for i in range(10)} | {total - 1})
    if bad := [step for step in steps if not 0 <= step <= total]:
        raise ValueError(f"steps must be between 0 and {total} heads, got {bad}")
    generator = torch.Generator().manual_seed(seed)
    orders = [("least important first", 0, list(ranking))]
    orders += [("most important first", 0, list(ranking)[::-1])]
    for draw in range(random_orders):
        mixed = [ranking[i] for i in torch.randperm(total, generator=generator).tolist()]
        orders.append(("random", draw, mixed))
    wholes = [bench.outcome(inputs) for inputs, _ in bench.batches]
    rows = []
    for order, draw, heads in orders:
        for step in steps:
            values = []
            with bench.removed(heads[:step]):
                for (inputs, labels), whole in zip(bench.batches, wholes, strict=True):
                    changed = bench.outcome(inputs)
                    target = bench.target(labels, whole)
                    if metric == "accuracy":
                        if target is None:
                            raise ValueError("accuracy needs a model with classes")
                        values.append((changed.output.argmax(-1) == target).float())
                    else:
                        values.append(measure(metric, whole, changed, target))
            rows.append((order, draw, step, float(torch.cat(values).mean())))
    return pl.DataFrame(rows, schema=["order", "draw", "removed", "mean"], orient="row")


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
