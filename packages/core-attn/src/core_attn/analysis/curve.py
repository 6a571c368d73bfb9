"""Whether a ranking of heads means something: what is lost as more and more of them go."""

from collections.abc import Callable, Sequence

import polars as pl
import torch

from .bench import Bench, Head
from .metrics import measure


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
        >>> from torch import nn
        >>> from core_attn.analysis import head_importance
        >>> model = nn.Sequential(core_attn.MultiHeadAttention(8, heads=4)).eval()
        >>> bench = Bench(model, [(torch.randn(3, 4, 8), None)])
        >>> heads = head_importance(bench).ranking("output_change")
        >>> pruning_curve(bench, heads, metric="output_change", steps=[0, 2]).height
        10
    """
    wholes = [bench.outcome(inputs) for inputs, _ in bench.batches]

    def left(heads: Sequence[Head]) -> float:
        values = []
        with bench.removed(heads):
            for (inputs, labels), whole in zip(bench.batches, wholes, strict=True):
                changed = bench.outcome(inputs)
                target = bench.target(labels, whole)
                if metric == "accuracy":
                    if target is None:
                        raise ValueError("accuracy needs a model with classes")
                    values.append((changed.output.argmax(-1) == target).float())
                else:
                    values.append(measure(metric, whole, changed, target))
        return float(torch.cat(values).mean())

    return curve_of(left, ranking, steps=steps, random_orders=random_orders, seed=seed)


def curve_of(
    measured: Callable[[Sequence[Head]], float],
    ranking: Sequence[Head],
    *,
    steps: Sequence[int] | None = None,
    random_orders: int = 3,
    seed: int = 0,
) -> pl.DataFrame:
    """As `pruning_curve`, for whatever can be measured without some heads.

    Args:
        measured: called with the heads that are gone.
        ranking: heads, least important first.
        steps: how many heads are gone at each point; by default about ten points.
        random_orders: draws of the control.
        seed: of the control.

    Raises:
        ValueError: a step that is no number of heads.

    Example:
        >>> curve_of(len, [("a", 0), ("a", 1)], steps=[0, 2], random_orders=0)["mean"].to_list()
        [0.0, 2.0, 0.0, 2.0]
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
    known: dict[frozenset[Head], float] = {}
    rows = []
    for order, draw, heads in orders:
        for step in steps:
            gone = frozenset(heads[:step])
            if gone not in known:  # all orders begin, and may end, with the same heads
                known[gone] = float(measured(heads[:step]))
            rows.append((order, draw, step, known[gone]))
    return pl.DataFrame(rows, schema=["order", "draw", "removed", "mean"], orient="row")
