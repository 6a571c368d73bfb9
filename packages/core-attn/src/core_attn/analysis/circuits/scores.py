"""From discrete codes to heads: codes, and pairs of codes, that only positive examples have."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Real, Shaped
from torch import Tensor


def distinct_codes(
    codes: Int[Tensor, "examples heads"], *, normalize: bool = False
) -> tuple[Float[Tensor, " heads"], Float[Tensor, " heads"]]:
    """For each head the number of codes among positives only, and among negatives only.

    Args:
        codes: of 2N examples, the first N positive.
        normalize: whether to divide by the head's distinct codes over all examples.

    Raises:
        ValueError: an odd number of examples.

    Example:
        >>> distinct_codes(torch.tensor([[1], [2], [2], [3]]))
        (tensor([1.]), tensor([1.]))
    """
    positive, negative = _halves(codes)
    counts = []
    for head in range(codes.shape[1]):
        ours, theirs = positive[:, head].unique(), negative[:, head].unique()
        both = int(torch.isin(ours, theirs).sum())
        every = len(ours) + len(theirs) - both
        divisor = every if normalize else 1
        counts.append(((len(ours) - both) / divisor, (len(theirs) - both) / divisor))
    found = torch.tensor(counts)
    return found[:, 0], found[:, 1]


def node_scores(
    codes: Int[Tensor, "examples heads"],
    *,
    normalize: bool = False,
    layers: int | None = None,
) -> Float[Tensor, " heads"]:
    """Softmax over heads of the number of codes that only positive examples have.

    Args:
        codes: of 2N examples, the first N positive; heads layer by layer.
        normalize: as in `distinct_codes`.
        layers: where given, the softmax runs over the layers, for each place of a head apart (the
            authors' "across layer").

    Example:
        >>> node_scores(torch.tensor([[1, 0], [2, 0], [2, 0], [3, 0]])).argmax()
        tensor(0)
    """
    counts, _ = distinct_codes(codes, normalize=normalize)
    if layers is None:
        return counts.softmax(0)
    return counts.unflatten(0, (layers, -1)).softmax(0).flatten()


def edge_scores(
    codes: Int[Tensor, "examples heads"], features: int, *, normalize: bool = False
) -> Float[Tensor, "heads heads"]:
    """For each pair of heads the number of pairs of codes that only positive examples have.

    By sets of numbers c1 F + c2; the table of all pairs of codes of all pairs of heads, 6.6 GB
    for GPT-2 small, is never built. 2N examples and H heads take O(N H^2 log N) time and O(N H)
    memory.

    Args:
        codes: of 2N examples, the first N positive.
        features: F, above every code.
        normalize: whether to divide by the distinct pairs among the positives plus those among
            the negatives.

    Example:
        >>> edge_scores(torch.tensor([[1, 1], [2, 2], [1, 2], [2, 1]]), features=3)
        tensor([[0., 2.],
                [2., 0.]])
    """
    positive, negative = _halves(codes)
    heads = codes.shape[1]
    columns = torch.arange(heads) * features**2
    scores = torch.zeros(heads, heads)
    for head in range(heads):
        ours, theirs = (
            (half[:, head, None] * features + half + columns).unique()
            for half in (positive, negative)
        )
        only = ours[~torch.isin(ours, theirs, assume_unique=True)]
        counts = [
            torch.bincount(pairs // features**2, minlength=heads) for pairs in (only, ours, theirs)
        ]
        scores[head] = counts[0] / (counts[1] + counts[2]) if normalize else counts[0]
        scores[head, head] = 0
    return scores


def edge_counts(
    scores: Float[Tensor, "heads heads"], entries: int | None = None
) -> Int[Tensor, " heads"]:
    """How often each head stands in the list of the strongest pairs.

    Args:
        scores: from `edge_scores`.
        entries: how many entries (two a pair) of the sorted list count; heads^2 / 2 by default.
            Equal scores come in the order of NumPy's argsort, reversed, as in the authors' code.

    Example:
        >>> edge_counts(torch.tensor([[0.0, 2, 0], [2, 0, 0], [0, 0, 0]]), entries=4)
        tensor([2, 2, 0])
    """
    heads = len(scores)
    order = np.argsort(scores.double().numpy().flatten())[::-1].copy()
    listed = torch.from_numpy(np.stack(np.unravel_index(order, (heads, heads)), 1)).flatten()
    return torch.bincount(listed[: entries or heads**2 // 2], minlength=heads)


def edge_circuit(
    scores: Float[Tensor, "heads heads"], entries: int | None = None
) -> Float[Tensor, " heads"]:
    """Softmax of `edge_counts`, the authors' score of a head.

    Among many heads counts lie so far apart that the softmax of all but a few is 0.

    Example:
        >>> edge_circuit(torch.tensor([[0.0, 2, 0], [2, 0, 0], [0, 0, 0]]), entries=4).argmin()
        tensor(2)
    """
    return edge_counts(scores, entries).float().softmax(0)


@dataclass(frozen=True)
class Agreement:
    """How well scores find a known circuit, over all thresholds.

    Attributes:
        auc: area under the curve of true against false positive rate.
        best_balance: the largest 2 t (1 - f) / (t + 1 - f) with rates t and f: what the authors
            call F1.
        best_f1: the largest F1, harmonic mean of precision and recall.
        precision: at that threshold.
        recall: at that threshold.
    """

    auc: float
    best_balance: float
    best_f1: float
    precision: float
    recall: float


def agreement(scores: Real[Tensor, "..."], circuit: Shaped[Tensor, "..."]) -> Agreement:
    """Compares the scores of heads with a known circuit, 0 or False for heads that are not in it.

    Raises:
        ValueError: the circuit holds no head, or all of them.

    Example:
        >>> agreement(torch.tensor([0.9, 0.1, 0.2]), torch.tensor([True, False, False])).auc
        1.0
    """
    circuit = circuit.flatten().bool()
    if not 0 < int(circuit.sum()) < len(circuit):
        raise ValueError(f"the circuit holds {int(circuit.sum())} of {len(circuit)} heads")
    thresholds = scores.flatten().unique().flip(0)
    chosen = scores.flatten() >= thresholds[:, None]
    hits, misses = (chosen & circuit).sum(1).double(), (chosen & ~circuit).sum(1).double()
    zero = torch.zeros(1, dtype=torch.float64)
    true = torch.cat([zero, hits / circuit.sum()])
    false = torch.cat([zero, misses / (~circuit).sum()])
    balance = 2 * true * (1 - false) / (true + 1 - false).clamp(min=1e-12)
    precision = hits / (hits + misses)
    f1 = 2 * precision * true[1:] / (precision + true[1:]).clamp(min=1e-12)
    best = int(f1.argmax())
    return Agreement(
        float(torch.trapezoid(true, false)), float(balance.max()), float(f1[best]),
        float(precision[best]), float(true[1:][best]),
    )  # fmt: skip


def _halves(codes: Tensor) -> tuple[Tensor, Tensor]:
    if codes.dim() != 2 or len(codes) % 2 or not len(codes):
        raise ValueError(
            f"expected 2N examples, first half positive; got codes of shape {tuple(codes.shape)}"
        )
    return codes[: len(codes) // 2], codes[len(codes) // 2 :]
