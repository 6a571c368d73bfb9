import itertools

import numpy as np
import polars as pl
import pytest
import torch
from pytorch_lightning import Trainer

from attn_recsys.calibration import Probability
from attn_recsys.data import SyntheticClicks
from attn_recsys.data.prepare import prepare
from attn_recsys.schema import Field, Schema
from attn_recsys.tasks import BaselineTask


def fitted(data, **options):
    """Logistic regression on a data module, after one epoch, and its validation metrics."""
    torch.manual_seed(0)
    task = BaselineTask("lr", optimizer="adam_tf", lr=3e-2, **options)
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
