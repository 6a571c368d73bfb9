import itertools

import numpy as np
import polars as pl
import pytest
import torch
from pytorch_lightning import Trainer
from sklearn.isotonic import IsotonicRegression

from attn_recsys.calibration import Isotonic, Probability, calibrator_from, fit_calibrator
from attn_recsys.data import SyntheticClicks
from attn_recsys.data.prepare import prepare
from attn_recsys.metrics import expected_calibration_error, log_loss
from attn_recsys.models import BaselineConfig
from attn_recsys.schema import Field, Schema
from attn_recsys.tasks import BaselineTask


def fitted(data, **options):
    """Logistic regression on a data module, after one epoch, and its validation metrics."""
    torch.manual_seed(0)
    task = BaselineTask(BaselineConfig("lr"), optimizer="adam_tf", lr=3e-2, **options)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, data)
    return task, {name: float(x) for name, x in trainer.callback_metrics.items()}


def sampled(folder, rate, seed=0, blocks=1):
    size = 4000
    random = np.random.default_rng(0)
    frame = pl.DataFrame(
        {"click": random.integers(0, 2, size), "row": [str(i) for i in range(size)]}
    )
    split = random.choice(3, size, p=(0.8, 0.1, 0.1)).astype(np.uint8)
    edges = np.linspace(0, size, blocks + 1).astype(int)
    parts = [(frame[a:b], split[a:b]) for a, b in itertools.pairwise(edges)]
    schema = Schema("click", (Field("row"),))
    prepared = prepare(lambda: parts, schema, folder, seed=seed, negative_rate=rate)
    return prepared, frame.with_columns(split=split)


def test_only_negatives_of_the_training_rows_are_left_out(tmp_path):
    prepared, frame = sampled(tmp_path / "p", 0.25)
    of = {key: len(rows) for key, rows in frame.group_by("split", "click")}
    assert prepared.rows["val"] == of[1, 0] + of[1, 1] and prepared.rows["test"] > 0
    left = prepared.rows["train"] - of[0, 1]
    assert left == pytest.approx(0.25 * of[0, 0], rel=0.1)
    assert prepared.base_rate == pytest.approx(of[0, 1] / prepared.rows["train"])
    # The values of rows left out have no row of the table, which nothing would train.
    assert prepared.layout.rows == 2 + prepared.rows["train"]


def test_the_same_rows_are_left_out_for_a_seed_whatever_the_blocks(tmp_path):
    def train(name, **options):
        sampled(tmp_path / name, 0.25, **options)
        vocabulary = pl.read_parquet(tmp_path / name / "vocabulary" / "row.parquet")
        return vocabulary["value"].to_list()

    first = train("a")
    assert train("b", blocks=7) == first != train("c", seed=1)


def test_a_rate_belongs_to_the_schema_of_a_model(tmp_path):
    hashes = {sampled(tmp_path / str(rate), rate)[0].hash for rate in (0.25, 0.5, 1.0)}
    assert len(hashes) == 3
    with pytest.raises(ValueError, match=r"negative_rate must be in \(0, 1\], got 0"):
        SyntheticClicks(negative_rate=0)
    folders = {SyntheticClicks(negative_rate=rate).prepared_folder for rate in (0.25, 1.0)}
    assert len(folders) == 2


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_the_correction_is_the_published_one(rate):
    q = torch.tensor([0.001, 0.3, 0.9])
    expected = q / (q + (1 - q) / rate)
    torch.testing.assert_close(Probability(rate)(q.logit()), expected)
    torch.testing.assert_close(Probability(rate, of_logits=False)(q), expected)


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_a_model_of_sampled_negatives_is_calibrated_on_all_rows(loss):
    data = SyntheticClicks(rows=30_000, negative_rate=0.2, batch_size=256)
    task, found = fitted(data, loss=loss)
    assert found["val/calibration_ratio"] == pytest.approx(1, abs=0.15)
    batches = list(data.val_dataloader())
    with torch.no_grad():
        p = torch.cat([task.predict_step(batch) for batch in batches])
        q = torch.cat([task.model(batch["index"], batch["value"]) for batch in batches])
    q = q.sigmoid() if loss == "bce" else q
    assert q.mean() > 1.5 * p.mean()


def overconfident(rows):
    """Logits that are too large by half and too low by 0.4, and labels."""
    random = np.random.default_rng(0)
    truth = random.normal(-1, 1.5, rows)
    labels = (random.random(rows) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    return (1.5 * truth - 0.4).astype(np.float32), labels


def test_platt_finds_the_line_that_undoes_a_distortion():
    found = fit_calibrator("platt", *overconfident(100_000))
    assert found.slope == pytest.approx(1 / 1.5, rel=0.02)
    assert found.shift == pytest.approx(0.4 / 1.5, abs=0.03)


def test_isotonic_is_that_of_scikit_learn_and_never_certain():
    logits, labels = overconfident(5000)
    labels[logits > np.quantile(logits, 0.999)] = 1
    found = fit_calibrator("isotonic", logits, labels)
    random = np.random.default_rng(1)
    fresh = np.concatenate([random.normal(-1, 3, 2000).astype(np.float32), logits, [-99, 99]])
    fresh = np.sort(fresh.astype(np.float32))
    theirs = IsotonicRegression(y_min=1 / 5002, y_max=5001 / 5002, out_of_bounds="clip")
    expected = theirs.fit(logits, labels).predict(fresh)
    p = found(torch.from_numpy(fresh)).numpy()
    np.testing.assert_allclose(p, expected, atol=1e-5)
    assert p.min() > 0 and p.max() < 1 and (np.diff(p) > -1e-6).all()


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibration_helps_on_rows_it_was_not_fitted_to(method):
    logits, labels = overconfident(40_000)
    found = fit_calibrator(method, logits[:20_000], labels[:20_000])
    found = calibrator_from(found.to_dict())
    held, labels = torch.from_numpy(logits[20_000:]), labels[20_000:]
    before, after = held.sigmoid().numpy(), found(held).numpy()
    assert expected_calibration_error(labels, before) > 0.05
    assert expected_calibration_error(labels, after) < 0.015
    assert log_loss(labels, after) < log_loss(labels, before) - 0.01


def test_one_knot_is_a_constant_and_one_class_is_refused():
    assert Isotonic([0.5], [0.25])(torch.randn(3)).tolist() == [0.25] * 3
    message = "needs both labels among the validation rows, all 3 have 1"
    with pytest.raises(ValueError, match=message):
        fit_calibrator("platt", np.zeros(3), np.ones(3))
