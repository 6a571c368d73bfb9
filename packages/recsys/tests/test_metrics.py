import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from attn_recsys import metrics


def test_auc_and_log_loss_agree_with_scikit_learn_with_ties():
    random = np.random.default_rng(0)
    labels, p = random.integers(0, 2, 500), random.integers(1, 20, 500) / 20
    assert metrics.auc(labels, p) == pytest.approx(roc_auc_score(labels, p), abs=1e-12)
    assert metrics.log_loss(labels, p) == pytest.approx(log_loss(labels, p), abs=1e-9)
    for weights in (None, random.integers(0, 3, 500).astype(float)):
        expected = average_precision_score(labels, p, sample_weight=weights)
        assert metrics.average_precision(labels, p, weights) == pytest.approx(expected, abs=1e-12)


def test_true_probabilities_are_calibrated_and_their_squares_are_not():
    random = np.random.default_rng(0)
    p = random.random(20_000)
    labels = (random.random(20_000) < p).astype(int)
    assert metrics.expected_calibration_error(labels, p) < 0.02
    assert metrics.expected_calibration_error(labels, p**2) > 0.1


def test_one_class_and_nan_are_refused():
    with pytest.raises(ValueError, match="AUC needs both classes, got 0 rows with label 1 and 3"):
        metrics.auc(np.zeros(3), np.arange(3))
    with pytest.raises(ValueError, match="scores contain NaN"):
        metrics.auc(np.array([0, 1]), np.array([0.1, np.nan]))
    assert metrics.grouped_auc(np.array([0, 1]), np.array([0.1, 0.2]), np.array([0, 1])) is None


def test_a_weight_counts_as_so_many_rows():
    random = np.random.default_rng(0)
    labels, p = random.integers(0, 2, 60), random.integers(1, 9, 60) / 9
    times = random.integers(0, 4, 60)
    repeated = metrics.summary(np.repeat(labels, times), np.repeat(p, times))
    weighted = metrics.summary(labels, p, times.astype(float))
    for name in ("auc", "pr_auc", "logloss", "normalized_entropy", "calibration_ratio"):
        assert weighted[name] == pytest.approx(repeated[name], abs=1e-12), name
