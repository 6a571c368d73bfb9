import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import LightningModule, Trainer

from core_attn.training import loader
from core_attn.training.schedules import rate_factor, warmup_cosine


@given(steps=st.integers(1, 400), warmup=st.integers(0, 500), floor=st.floats(0, 0.5))
def test_the_peak_is_reached_and_the_end_is_low(steps, warmup, floor):
    rates = [rate_factor(steps, warmup, floor)(step) for step in range(steps + 1)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(1) and top <= max(warmup, 1)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert all(a >= b - 1e-12 for a, b in zip(rates[top:], rates[top + 1 :], strict=False))
    assert rates[-1] == pytest.approx(floor, abs=1e-12)


@given(steps=st.integers(2, 400), warmup=st.integers(1, 500))
def test_a_run_that_time_ends_has_the_rates_of_one_of_as_many_steps(steps, warmup):
    now = 0
    timed = rate_factor(math.inf, warmup, 0.1, lambda: now / steps)
    counted = rate_factor(steps, warmup, 0.1)
    for now in range(steps):
        if now + 1 >= warmup or now >= steps / 2:
            assert timed(now) == pytest.approx(counted(now), abs=1e-9)


class Line(LightningModule):
    def __init__(self, warmup):
        super().__init__()
        self.layer, self.warmup, self.rates = torch.nn.Linear(1, 1), warmup, []

    def training_step(self, batch, index):
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return self.layer(batch[:, None].float()).sum()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        return warmup_cosine(optimizer, self.trainer, warmup=self.warmup)


@pytest.mark.parametrize(
    ("ending", "warmup"),
    [
        ({"max_epochs": 4}, 1),
        ({"max_epochs": 2}, 5),
        ({"max_steps": 10}, 1),
        ({"max_epochs": 1, "max_steps": 3}, 5),
        ({"max_epochs": -1, "max_time": {"milliseconds": 300}}, 1),
        ({"max_epochs": 1000, "max_time": {"milliseconds": 300}}, 1),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 1),
    ],
)
def test_the_peak_is_reached_whatever_ends_the_run(ending, warmup, tmp_path):
    task = Line(warmup)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(
        **ending, **quiet, enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path
    )
    trainer.fit(task, loader(range(12), 4, shuffle=True))
    assert max(task.rates) == pytest.approx(0.5)
    assert task.rates[-1] < 0.5 or len(task.rates) < 4
