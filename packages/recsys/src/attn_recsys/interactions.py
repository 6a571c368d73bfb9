"""Which fields work together in a trained model."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .data.batches import Batch
from .models import Model

PAIR_ROWS = 512
WIDE = 64  # fields, above which fewer rows and pairs are measured


def interaction_strengths(
    model: Model,
    batch: Batch,
    rows: int = PAIR_ROWS,
    seed: int = 0,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> Float[Tensor, "fields fields"]:
    """How much two fields change the logit together, beyond what each changes alone.

    Of each row x and another row y, with x_i meaning x with field i as in y: the root of the mean
    square of f(x) - f(x_i) - f(x_j) + f(x_ij). It is 0 for fields whose effects add up, in any
    model, and positive for every pair inside an interaction of higher order.

    Args:
        model: from ids and values to logits.
        batch: rows to take.
        rows: how many; an eighth of them where there are more than `WIDE` fields.
        seed: of the pairing of rows.
        pairs: those to measure, others stay NaN; all if None.

    Source: the mixed difference behind Friedman and Popescu, 2008, "Predictive Learning via Rule
    Ensembles", section 8.1, on pairs of rows.
    """
    layout = model.layout
    size = min(rows if layout.fields <= WIDE else rows // 8, len(batch["label"]))
    index, value = batch["index"][:size], batch["value"][:size]
    other = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    slots = torch.tensor([i for i, width in enumerate(layout.widths) for _ in range(width)])

    def logits(*fields: int) -> Tensor:
        swapped = torch.isin(slots, torch.tensor(fields, dtype=torch.long))
        return model(
            torch.where(swapped, index[other], index), torch.where(swapped, value[other], value)
        )

    with torch.no_grad():
        base = logits()
        every = list(itertools.combinations(range(layout.fields), 2))
        chosen = every if pairs is None else pairs
        alone = {i: logits(i) for i in sorted({i for pair in chosen for i in pair})}
        strengths = torch.full((layout.fields, layout.fields), torch.nan)
        strengths.fill_diagonal_(0)
        for i, j in chosen:
            mixed = base - alone[i] - alone[j] + logits(i, j)
            strengths[i, j] = strengths[j, i] = mixed.square().mean().sqrt()
    return strengths


def candidates(likely: Float[np.ndarray, "fields fields"], limit: int) -> list[tuple[int, int]]:
    """The pairs that are measured: all, or the `limit` of them that attend to each other most.

    Args:
        likely: the largest weight with which a field reads another, in any block and head.
        limit: how many.

    Example:
        >>> candidates(np.array([[0, 0.1, 0.9], [0.1, 0, 0], [0, 0.2, 0]]), 2)
        [(0, 2), (1, 2)]
    """
    pairs = list(itertools.combinations(range(len(likely)), 2))
    if len(pairs) <= limit:
        return pairs
    order = sorted(pairs, key=lambda pair: -max(likely[pair], likely[pair[::-1]]))
    return order[:limit]


def lone_effects(model: Model, batch: Batch, rows: int = 128) -> np.ndarray:
    """For each pair the smaller of what its two fields change alone."""
    layout = model.layout
    index, value = batch["index"][:rows], batch["value"][:rows]
    other = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))
    slots = torch.tensor([i for i, width in enumerate(layout.widths) for _ in range(width)])
    with torch.no_grad():
        base = model(index, value)
        effects = []
        for field in range(layout.fields):
            at = slots == field
            swapped = torch.where(at, index[other], index), torch.where(at, value[other], value)
            effects.append(float((model(*swapped) - base).square().mean().sqrt()))
    return np.minimum.outer(effects, effects)
