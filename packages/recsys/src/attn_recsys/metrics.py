"""How good probabilities are: ranking, likelihood and calibration."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Real

CLIP = 1e-6


class Bin(NamedTuple):
    """One bin of a reliability curve."""

    rows: int
    predicted: float
    observed: float


def auc(
    labels: Real[np.ndarray, " rows"],
    scores: Real[np.ndarray, " rows"],
    weights: Real[np.ndarray, " rows"] | None = None,
) -> float:
    """Area under the ROC curve; tied scores count half.

    With weights it is the share of the pairs that are in order, each with the product of theirs.

    Raises:
        ValueError: only one class is there, or a score is NaN.

    Example:
        >>> auc(np.array([0, 1, 1, 0]), np.array([0.1, 0.4, 0.35, 0.35]))
        0.875
    """
    labels = np.asarray(labels) > 0.5
    scores = np.asarray(scores, np.float64)
    if np.isnan(scores).any():
        raise ValueError("scores contain NaN")
    ones = int(labels.sum())
    zeros = len(labels) - ones
    if not ones or not zeros:
        raise ValueError(
            f"AUC needs both classes, got {ones} rows with label 1 and {zeros} with label 0"
        )
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    if weights is not None:
        one = np.bincount(place, np.where(labels, weights, 0))
        zero = np.bincount(place, np.where(labels, 0, weights))
        below = np.cumsum(zero) - zero / 2
        return float((one * below).sum() / (one.sum() * zero.sum()))
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((rank[labels].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def log_loss(
    labels: Real[np.ndarray, " rows"],
    p: Real[np.ndarray, " rows"],
    weights: Real[np.ndarray, " rows"] | None = None,
) -> float:
    """Mean negative log likelihood of probabilities clipped to [1e-6, 1 - 1e-6].

    Example:
        >>> round(log_loss(np.array([1, 0]), np.array([0.5, 0.5])), 4)
        0.6931
    """
    labels = np.asarray(labels, np.float64)
    p = np.clip(np.asarray(p, np.float64), CLIP, 1 - CLIP)
    return float(-np.average(labels * np.log(p) + (1 - labels) * np.log(1 - p), weights=weights))


def normalized_entropy(
    labels: Real[np.ndarray, " rows"],
    p: Real[np.ndarray, " rows"],
    weights: Real[np.ndarray, " rows"] | None = None,
) -> float:
    """Log loss over that of the base rate; below 1 is better than no model.

    Source: He et al., 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook".

    Example:
        >>> normalized_entropy(np.array([1, 0]), np.array([0.5, 0.5]))
        1.0
    """
    base = np.full(len(labels), np.average(labels, weights=weights))
    return log_loss(labels, p, weights) / log_loss(labels, base, weights)


def reliability(
    labels: Real[np.ndarray, " rows"], p: Real[np.ndarray, " rows"], bins: int = 10
) -> list[Bin]:
    """Mean prediction and share of ones in bins of equally many rows, by rising prediction.

    Example:
        >>> reliability(np.array([0, 1]), np.array([0.2, 0.9]), bins=2)[1]
        Bin(rows=1, predicted=0.9, observed=1.0)
    """
    order = np.argsort(p, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return [Bin(len(i), float(np.mean(p[i])), float(np.mean(labels[i]))) for i in parts]


def expected_calibration_error(
    labels: Real[np.ndarray, " rows"], p: Real[np.ndarray, " rows"], bins: int = 10
) -> float:
    """Mean over equally full bins of |mean prediction - share of ones|.

    Source: Naeini et al., 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning";
    equally full bins.

    Example:
        >>> expected_calibration_error(np.array([0, 1]), np.array([0.25, 0.75]), bins=2)
        0.25
    """
    curve = reliability(labels, p, bins)
    return sum(b.rows * abs(b.predicted - b.observed) for b in curve) / len(labels)


def grouped_auc(
    labels: Real[np.ndarray, " rows"],
    scores: Real[np.ndarray, " rows"],
    groups: Int[np.ndarray, " rows"],
) -> float | None:
    """Mean of every group's AUC, weighted by its rows; None if no group has both classes.

    Example:
        >>> grouped_auc(np.array([0, 1, 0, 1]), np.array([1, 2, 9, 8]), np.array([0, 0, 1, 1]))
        0.5
    """
    order = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(np.diff(np.asarray(groups)[order])) + 1
    total = weight = 0.0
    for part in np.split(order, edges):
        if 0 < np.mean(labels[part]) < 1:
            total += len(part) * auc(labels[part], scores[part])
            weight += len(part)
    return total / weight if weight else None


def grouped_calibration_error(
    labels: Real[np.ndarray, " rows"],
    p: Real[np.ndarray, " rows"],
    groups: Int[np.ndarray, " rows"],
) -> float:
    """Mean over groups, weighted by their rows, of |mean prediction - share of ones|.

    Source: Pan et al., 2020, "Field-aware Calibration", arXiv 1905.10713, eq. (5), Field-ECE.

    Example:
        >>> grouped_calibration_error(np.ones(2), np.array([0.5, 0.75]), np.array([0, 1]))
        0.375
    """
    _, place = np.unique(groups, return_inverse=True)
    gaps = np.bincount(place, np.asarray(p, np.float64) - np.asarray(labels, np.float64))
    return float(np.abs(gaps).sum() / len(place))


def by_group(
    labels: Real[np.ndarray, " rows"],
    p: Real[np.ndarray, " rows"],
    groups: Int[np.ndarray, " rows"],
    cutoffs: Sequence[int] = (10,),
) -> dict[str, float]:
    """What is measured within groups; the AUC is left out where no group has both labels.

    Args:
        labels: 0 or 1.
        p: probabilities.
        groups: equal numbers are equal groups.
        cutoffs: rows of each group that count for NDCG and reciprocal rank.

    Example:
        >>> sorted(by_group(np.array([0, 1]), np.array([0.2, 0.9]), np.array([7, 7]), (5,)))
        ['grouped_auc', 'grouped_ece', 'mrr@5', 'ndcg@5']
    """
    found = {"grouped_ece": grouped_calibration_error(labels, p, groups)}
    if (within := grouped_auc(labels, p, groups)) is not None:
        found["grouped_auc"] = within
    for k in cutoffs:
        found |= ranking(labels, p, groups, k)
    return found


def average_precision(
    labels: Real[np.ndarray, " rows"],
    scores: Real[np.ndarray, " rows"],
    weights: Real[np.ndarray, " rows"] | None = None,
) -> float:
    """Area under the precision-recall curve: the mean precision at the rows with label 1.

    The precision at a row is that of all rows with its score or a higher one. (As in scikit-learn,
    whose import takes two seconds.)

    Example:
        >>> average_precision(np.array([1, 0, 1]), np.array([0.9, 0.8, 0.7]))
        0.8333333333333333
    """
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    kept = weights > 0
    _, place = np.unique(np.asarray(scores)[kept], return_inverse=True)
    ones = np.bincount(place, (np.asarray(labels) > 0.5)[kept] * weights[kept])[::-1]
    rows = np.bincount(place, weights[kept])[::-1]
    return float((ones * ones.cumsum() / rows.cumsum()).sum() / ones.sum())


def ranking(
    labels: Real[np.ndarray, " rows"],
    scores: Real[np.ndarray, " rows"],
    groups: Int[np.ndarray, " rows"],
    k: int = 10,
) -> dict[str, float]:
    """NDCG and reciprocal rank of the first k rows of each group; means over groups with a 1.

    Example:
        >>> ranking(np.array([0, 1, 1, 0]), np.array([9, 8, 7, 6]), np.array([0, 0, 1, 1]), k=2)
        {'ndcg@2': 0.8154648767857288, 'mrr@2': 0.75}
    """
    order = np.lexsort((-np.asarray(scores), groups))
    edges = np.flatnonzero(np.diff(np.asarray(groups)[order])) + 1
    discount = 1 / np.log2(np.arange(2, k + 2))
    gains, ranks = [], []
    for part in np.split(order, edges):
        found = np.asarray(labels)[part] > 0.5
        if found.any():
            first = found[:k]
            ideal = discount[: min(int(found.sum()), k)].sum()
            gains.append(float((first * discount[: len(first)]).sum() / ideal))
            ranks.append(1 / (1 + int(first.argmax())) if first.any() else 0.0)
    return {f"ndcg@{k}": float(np.mean(gains)), f"mrr@{k}": float(np.mean(ranks))} if gains else {}


def relative_improvement(auc_model: float, auc_base: float) -> float:
    """(AUC - 0.5) / (AUC of the base - 0.5) - 1, the RelaImpr of the literature.

    Example:
        >>> round(relative_improvement(0.75, 0.7), 4)
        0.25
    """
    return (auc_model - 0.5) / (auc_base - 0.5) - 1


def summary(
    labels: Real[np.ndarray, " rows"],
    p: Real[np.ndarray, " rows"],
    weights: Real[np.ndarray, " rows"] | None = None,
) -> dict[str, float]:
    """AUC, log loss and calibration in one go; what is undefined for rows of one class is left out.

    With weights all but "ece", which is of the rows as they are, are weighted.

    Example:
        >>> sorted(summary(np.array([0, 1]), np.array([0.2, 0.9])))
        ['auc', 'calibration_ratio', 'ece', 'logloss', 'normalized_entropy', 'pr_auc']
        >>> sorted(summary(np.array([0, 0]), np.array([0.2, 0.9])))
        ['ece', 'logloss']
    """
    if weights is not None and not np.sum(weights):
        return {}
    found = {
        "logloss": log_loss(labels, p, weights),
        "ece": expected_calibration_error(labels, p),
    }
    if 0 < np.average(labels, weights=weights) < 1:
        found |= {
            "auc": auc(labels, p, weights),
            "pr_auc": average_precision(labels, p, weights),
            "normalized_entropy": normalized_entropy(labels, p, weights),
            "calibration_ratio": float(
                np.average(p, weights=weights) / np.average(labels, weights=weights)
            ),
        }
    return found
