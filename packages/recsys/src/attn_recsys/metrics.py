"""How good probabilities are: ranking, likelihood and calibration."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

CLIP = 1e-6


class Bin(NamedTuple):
    """One bin of a reliability curve."""

    rows: int
    predicted: float
    observed: float


def auc(labels: Float[np.ndarray, " rows"], scores: Float[np.ndarray, " rows"]) -> float:
    """Area under the ROC curve; tied scores count half.

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
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((rank[labels].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def log_loss(labels: Float[np.ndarray, " rows"], p: Float[np.ndarray, " rows"]) -> float:
    """Mean negative log likelihood of probabilities clipped to [1e-6, 1 - 1e-6].

    Example:
        >>> round(log_loss(np.array([1, 0]), np.array([0.5, 0.5])), 4)
        0.6931
    """
    labels = np.asarray(labels, np.float64)
    p = np.clip(np.asarray(p, np.float64), CLIP, 1 - CLIP)
    return float(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean())


def normalised_entropy(labels: Float[np.ndarray, " rows"], p: Float[np.ndarray, " rows"]) -> float:
    """Log loss over that of the base rate; below 1 is better than no model.

    Source: He et al., 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook".

    Example:
        >>> normalised_entropy(np.array([1, 0]), np.array([0.5, 0.5]))
        1.0
    """
    rate = float(np.mean(labels))
    return log_loss(labels, p) / log_loss(labels, np.full(len(labels), rate))


def reliability(
    labels: Float[np.ndarray, " rows"], p: Float[np.ndarray, " rows"], bins: int = 10
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
    labels: Float[np.ndarray, " rows"], p: Float[np.ndarray, " rows"], bins: int = 10
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
    labels: Float[np.ndarray, " rows"],
    scores: Float[np.ndarray, " rows"],
    groups: Int[np.ndarray, " rows"],
) -> float:
    """Mean of every group's AUC, weighted by its rows; groups with one class are left out.

    Raises:
        ValueError: no group has both classes.

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
    if not weight:
        raise ValueError("no group has both classes")
    return total / weight


def relative_improvement(auc_model: float, auc_base: float) -> float:
    """(AUC - 0.5) / (AUC of the base - 0.5) - 1, the RelaImpr of the literature.

    Example:
        >>> round(relative_improvement(0.75, 0.7), 4)
        0.25
    """
    return (auc_model - 0.5) / (auc_base - 0.5) - 1


def summary(labels: Float[np.ndarray, " rows"], p: Float[np.ndarray, " rows"]) -> dict[str, float]:
    """AUC, log loss and calibration in one go.

    Example:
        >>> sorted(summary(np.array([0, 1]), np.array([0.2, 0.9])))
        ['auc', 'calibration_ratio', 'ece', 'logloss', 'normalised_entropy']
    """
    return {
        "auc": auc(labels, p),
        "logloss": log_loss(labels, p),
        "normalised_entropy": normalised_entropy(labels, p),
        "ece": expected_calibration_error(labels, p),
        "calibration_ratio": float(np.mean(p) / np.mean(labels)),
    }
