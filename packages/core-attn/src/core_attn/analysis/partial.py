"""Why a head matters: what is lost when parts of what it looks at are taken out."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import polars as pl
import torch
from torch import Tensor

from .bench import Bench, Head
from .metrics import applicable, measure
from .strength import Layout

PARTS = ("class_to_patches", "patches_to_class", "patches_to_patches", "self", "near", "far")


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
        if self.reach < 0:
            raise ValueError(f"reach must not be negative, got {self.reach}")

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
        >>> from torch import nn
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
