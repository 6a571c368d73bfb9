"""What every run does besides learning: it can be interrupted and resumed, and it is measured."""

import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint, RichProgressBar
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import distributed, nn

from .data import ResumableLoader
from .task import Task


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt`, from which a run continues to the same numbers.

    It is written at the end of each epoch, after every `every_n_steps` steps, and on Ctrl-C or
    SIGTERM, when the current step, or the validation that follows it, is done. It holds the
    random states of Python, NumPy and torch in every process. What a task sums up over an epoch,
    as a mean of its training loss, begins anew after a resumption within the epoch.

    Args:
        path: the file.
        every_n_steps: steps between checkpoints within an epoch; 0 for none.
    """

    def __init__(self, path: Path, every_n_steps: int = 0):
        super().__init__()
        self.path = path
        self.every_n_steps = every_n_steps
        self.stopped = False
        self.signal = 0
        self._step = 0
        self._random: list[dict[str, Any]] | None = None
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The random states of all processes; called in all of them at once."""
        states: list[Any] = [_random_state()]
        if distributed.is_initialized():
            states = [None] * distributed.get_world_size()
            distributed.all_gather_object(states, _random_state())
        return {"random": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the random states until training starts."""
        self._random = state_dict["random"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the random states; from now on, signals stop after the current step."""
        if self._random is not None and len(self._random) == trainer.world_size:
            _set_random_state(self._random[trainer.global_rank])
        self._step = trainer.global_step
        _continue_loaders(trainer.fit_loop)
        _begin_next_epoch(trainer.fit_loop)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._note)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Saves where it is due. Where a validation follows, it comes first and is not lost."""
        previous, self._step = self._step, trainer.global_step
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if done == trainer.num_training_batches or _validation_follows(trainer, done):
            return
        if self._step == previous:  # gradients are being accumulated
            return
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if self._stop(trainer) or due:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves at the end of each epoch."""
        self._stop(trainer)
        self._save(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stops here after Ctrl-C: the last step is saved, and its metrics are logged by now."""
        if self.stopped:
            raise KeyboardInterrupt

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the signals back to whoever had them."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Gives the signals back."""
        self.teardown(trainer, pl_module, "fit")

    def _save(self, trainer: Trainer) -> None:
        if not getattr(trainer, "fast_dev_run", False):
            trainer.save_checkpoint(self.path)
            for logger in trainer.loggers:
                logger.save()

    def _stop(self, trainer: Trainer) -> bool:
        """Whether any process was told to stop."""
        self.stopped = trainer.strategy.reduce_boolean_decision(self.signal > 0, all=False)
        return self.stopped

    def _note(self, number: int, frame: Any) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        rank_zero_only(print)(
            "\nstopping after this step; once more stops at once, unsaved", flush=True
        )


class Throughput(Callback):
    """Logs samples per second of training, all processes together, and the peak memory in MiB."""

    def __init__(self):
        self._samples = 0
        self._since = self._validating = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._samples, self._since = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Task, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts."""
        self._samples += pl_module.samples(batch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Holds the clock."""
        self._validating = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets it run again."""
        self._since += time.perf_counter() - self._validating

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs both figures."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
            peak = torch.cuda.max_memory_allocated(pl_module.device)
        else:
            unit = 1 if sys.platform == "darwin" else 1024
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        seconds = max(time.perf_counter() - self._since, 1e-9)
        pl_module.log_dict(
            {
                "train/samples_per_second": self._samples * trainer.world_size / seconds,
                "train/peak_memory_mib": peak / 2**20,
            },
            rank_zero_only=True,
        )


class Progress(RichProgressBar):
    """A bar that is redrawn at most `a_second` times a second, however short the steps are."""

    def __init__(self, a_second: float = 10.0):
        super().__init__()
        self._pause, self._drawn = 1 / a_second, float("-inf")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraws, if it is time or the epoch's end."""
        now = time.perf_counter()
        if now - self._drawn >= self._pause or batch_idx + 1 == trainer.num_training_batches:
            self._drawn = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class Compile(Callback):
    """Compiles the network in place, once it is built; its state dict stays as it is."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compiles `pl_module.model`; the other commands do so too."""
        model = cast(nn.Module, pl_module.model)
        if model._compiled_call_impl is None:
            model.compile()

    on_validation_start = on_test_start = on_predict_start = on_fit_start


def _validation_follows(trainer: Trainer, batches_done: int) -> bool:
    every = trainer.val_check_batch
    return bool(trainer.enable_validation and every and batches_done % every == 0)


def _continue_loaders(loop: Any) -> None:
    """Gives the loaders their state where they stood before it was read.

    Lightning does so only if it makes them afterwards, which a task that asks for its estimated
    steps, as for a schedule, prevents.
    """
    states, loop._combined_loader_states_to_load = loop._combined_loader_states_to_load, []
    if states and loop.restarting:
        loop._combined_loader._load_state_dicts(states)


def _begin_next_epoch(loop: Any) -> None:
    """Resumed at the end of an epoch while `max_steps` counts, Lightning would repeat that end."""
    if loop.restarted_on_epoch_end:
        for batches in loop._combined_loader.flattened:
            if isinstance(batches, ResumableLoader):  # cut by limit_train_batches
                batches.load_state_dict({"batches": 0})
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop._restarting = loop.epoch_loop.restarting = False


def _random_state() -> dict[str, Any]:
    """In types that torch.load accepts with weights_only=True."""
    numpy = dict(np.random.get_state(legacy=False))
    key, position = numpy["state"]["key"], numpy["state"]["pos"]
    return {
        "python": random.getstate(),
        "numpy": numpy | {"state": {"key": key.tolist(), "pos": position}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _set_random_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    numpy = state["numpy"]
    key = np.array(numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy | {"state": {"key": key, "pos": numpy["state"]["pos"]}})
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
