"""Learning rates over a run, whatever ends it: epochs, steps or hours."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Timer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(
    optimizer: Optimizer, trainer: Trainer, *, warmup: float, floor: float = 0.0
) -> dict[str, Any]:
    """What `configure_optimizers` returns for a rate that rises, then falls as half a cosine.

    It rises linearly over the warm-up, or over the first half of a run that is shorter than twice
    that, so that the peak is always reached, and falls until the run ends: after the trainer's
    epochs or steps, or with its `max_time`, whichever comes first.

    Args:
        optimizer: with the peak rates.
        trainer: tells what ends the run.
        warmup: epochs of rising rate; a fraction is one.
        floor: the rate at the end, as a share of the peak.

    Source: Loshchilov and Hutter, 2017, "SGDR", arXiv 1608.03983, eq. (5); linear warm-up of Goyal
    et al., 2017, arXiv 1706.02677, section 2.2.
    """
    run = run_length(trainer)
    factor = rate_factor(run.steps, warmup * run.epoch, floor, run.elapsed)
    return stepwise(optimizer, factor)


def stepwise(
    optimizer: Optimizer, factors: Callable[[int], float] | list[Callable[[int], float]]
) -> dict[str, Any]:
    """What `configure_optimizers` returns for shares of the peak rates at each step.

    Args:
        optimizer: with the peak rates.
        factors: from a step, counted from 0, to the share; one for all groups or one for each.
    """
    scheduler = LambdaLR(optimizer, factors)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
    }


class RunLength(NamedTuple):
    """What ends a run.

    Attributes:
        steps: of the whole run; infinity if time alone ends it.
        epoch: steps of an epoch.
        elapsed: the share of the run's time that is over, 0 if it has no end in time.
    """

    steps: float
    epoch: float
    elapsed: Callable[[], float]


def run_length(trainer: Trainer) -> RunLength:
    """How long a run takes; sets its data up where that is not done."""
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()  # where time ends the run, the trainer estimates nothing
    epoch = trainer.num_training_batches / trainer.accumulate_grad_batches
    timers = [x for x in trainer.callbacks if isinstance(x, Timer)]  # type: ignore[attr-defined]

    def elapsed() -> float:
        shares = [
            timer.time_elapsed() / max(timer.time_elapsed() + left, 1e-9)
            for timer in timers
            if (left := timer.time_remaining()) is not None
        ]
        return max(shares, default=0.0)

    steps = trainer.estimated_stepping_batches
    return RunLength(steps, epoch if math.isinf(epoch) else math.ceil(epoch), elapsed)


def rate_factor(
    steps: float, warmup: float, floor: float, elapsed: Callable[[], float] = lambda: 0.0
) -> Callable[[int], float]:
    """The share of the peak rate at each step, counted from 0.

    Args:
        steps: of the run; infinity if time alone ends it.
        warmup: steps of rising rate, at most half of `steps` of them.
        floor: the share at the end.
        elapsed: share of the run's time that is over.

    Example:
        >>> [round(rate_factor(8, 2, 0.0)(step), 2) for step in range(8)]
        [0.5, 1.0, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
        >>> max(map(rate_factor(3, 100, 0.0), range(3)))  # a run shorter than its warm-up
        1.0
    """
    rising = max(1.0, min(warmup, steps / 2))

    def factor(step: int) -> float:
        done = min(1.0, max(step / max(steps, 1), elapsed()))
        rise = max((step + 1) / rising, 2 * done)
        if rise < 1:
            return rise
        peak = min(0.5, rising * done / max(step, 1))  # the share of the run at which it was
        fallen = max(0.0, (done - peak) / (1 - peak))
        return floor + (1 - floor) * (1 + math.cos(math.pi * fallen)) / 2

    return factor
