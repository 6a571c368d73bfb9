"""A model, what is run through it, and what it says without some of its heads."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .metrics import Outcome
from .sites import Sites, find_sites

Batch = tuple[Tensor, Tensor | None]
Head = tuple[str, int]


class Bench:
    """A model, what is run through it, and what it said as a whole.

    Args:
        model: any model with attention sites; put into evaluation mode by the caller.
        batches: pairs of inputs (images, …) and labels, or None: then the predicted class.
        sites: its attention layers; found by default.
        classifier: the name of the module whose input is the feature; None for no feature. Where
            it does nothing, or there is none, the output is no score of classes.

    Raises:
        TypeError: labels are no integers.
        ValueError: no batches, an empty one, labels that are not one class per input, or an output
            that is not a tensor of one row per input.
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
        for number, (inputs, labels) in enumerate(self.batches):
            _check_batch(number, inputs, labels)
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
        if labels is None:
            return whole.output.argmax(-1)
        classes = whole.output.shape[1]
        if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(
                f"labels must be 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}"
            )
        return labels

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

    def seconds(self) -> float:
        """How long a pass over all batches takes, by the first of them, run once to warm up."""
        inputs = self.batches[0][0]
        self.outcome(inputs)
        start = time.perf_counter()
        self.outcome(inputs)
        samples = sum(len(x) for x, _ in self.batches)
        return (time.perf_counter() - start) * samples / len(inputs)


def _check_batch(number: int, inputs: Tensor, labels: Tensor | None) -> None:
    if not len(inputs):
        raise ValueError(f"batch {number} is empty")
    if labels is None:
        return
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels of batch {number} must be integers, got {labels.dtype}")
    if labels.shape != inputs.shape[:1]:
        raise ValueError(
            f"batch {number} has {len(inputs)} inputs, its labels have shape {tuple(labels.shape)}"
        )


def without(heads: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """A change of (batch, tokens, heads, dim) that sets some heads to 0."""

    def change(x: Tensor) -> Tensor:
        keep = x.new_ones(x.shape[-2])
        keep[list(heads)] = 0
        return x * keep[:, None]

    return change
