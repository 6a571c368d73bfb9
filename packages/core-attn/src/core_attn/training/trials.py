"""A trained task, validated on the same batches with and without some of its heads."""

import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from ..analysis.bench import Head, without
from ..analysis.importance import HeadImportance
from ..analysis.metrics import Outcome, measure
from ..analysis.profile import Profile
from ..analysis.sites import Sites, find_sites
from .task import Task


@dataclass(frozen=True)
class Verdict:
    """What one validation said.

    Attributes:
        metrics: all that the task logged.
        outputs: of the network, batch by batch; empty where it does not give a tensor a sample.
    """

    metrics: Mapping[str, float]
    outputs: Sequence[Tensor]


class _Some(LightningDataModule):
    """Data that are set up already, with some batches of their validation data.

    Tasks ask the trainer's data for what they are, as for a tokenizer: all that is not here is
    theirs.
    """

    def __init__(self, data: LightningDataModule, batches: Sequence[Any]):
        super().__init__()
        self._whole, self._batches = data, batches

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self._batches, batch_size=None, collate_fn=_as_it_is)  # pyright: ignore[reportArgumentType]

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        return self._whole.transfer_batch_to_device(batch, device, dataloader_idx)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_whole"], name)


class Trials:
    """A task and some batches of its validation data.

    Args:
        task: trained, in evaluation mode.
        data: set up for validation.
        batches: how many of them are used, from the first on.

    Attributes:
        sites: the network's attention layers.
        num_heads: of each.
        profiles: how the heads of each layer spread their weight.
        silent: layers that give no such weights, with the reason.

    Raises:
        ValueError: the network has no attention layer, the data no batch, or the task does not log
            what it monitors.
    """

    def __init__(self, task: Task, data: LightningDataModule, batches: int = 4):
        self.task = task
        found = find_sites(task.model)
        loader: Any = data.val_dataloader()
        self.batches = list(islice(loader, batches))
        self._told = False
        self._data = _Some(data, self.batches)
        if not self.batches:
            raise ValueError(f"{type(data).__name__} has no batch for validation")
        counts: dict[str, int] = {}
        changes = {name: _counting(counts, name) for name in found}
        with found.edit("heads", changes):
            self.whole = self.run()
        self.sites = Sites({name: site for name, site in found.items() if name in counts})
        if not counts:
            raise ValueError(f"no attention layer of {type(task.model).__name__} ran")
        self.num_heads = counts
        if task.monitor not in self.whole.metrics:
            raise ValueError(
                f"{type(task).__name__} monitors {task.monitor}, but logged "
                f"{', '.join(self.whole.metrics) or 'nothing'}"
            )
        self.profiles, self.silent = self._profiled()

    def run(self) -> Verdict:
        """Validates the task as it is now; what it has to say is heard the first time only."""
        outputs: list[Tensor] = []
        handle = self.task.model.register_forward_hook(
            lambda _m, _args, output: outputs.extend(_first(output))
        )
        try:
            with (
                torch.random.fork_rng(devices=[]),
                _quiet(),
                redirect_stderr(io.StringIO()) if self._told else nullcontext(),
                tempfile.TemporaryDirectory() as out,
            ):
                torch.manual_seed(0)
                trainer = Trainer(
                    accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
                    enable_progress_bar=False, enable_model_summary=False, inference_mode=False,
                    default_root_dir=out,
                )  # fmt: skip
                (metrics,) = trainer.validate(self.task, datamodule=self._data, verbose=False)
        finally:
            handle.remove()
            self.task.eval()
        self._told = True
        return Verdict({name: float(x) for name, x in metrics.items()}, outputs)

    @contextmanager
    def removed(self, heads: Sequence[Head]):
        """While open, these heads give 0."""
        gone: dict[str, list[int]] = {}
        for name, head in heads:
            gone.setdefault(name, []).append(head)
        with self.sites.edit("heads", {name: without(which) for name, which in gone.items()}):
            yield

    def monitored(self, heads: Sequence[Head]) -> float:
        """What the task monitors, without some heads."""
        with self.removed(heads):
            return self.run().metrics[self.task.monitor]

    def importance(
        self, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> HeadImportance:
        """What is lost without each head: "worse …" of what the task monitors, "output_change".

        Args:
            progress: called with the heads done and their total.
        """
        every = [(name, head) for name, count in self.num_heads.items() for head in range(count)]
        widest, names = max(self.num_heads.values()), tuple(self.num_heads)
        samples = sum(map(len, self.whole.outputs))
        worse = torch.full((1, len(names), widest), torch.nan)
        moved = torch.full((samples, len(names), widest), torch.nan)
        sign = 1 if self.task.mode == "min" else -1
        base = self.whole.metrics[self.task.monitor]
        for done, (name, head) in enumerate(every):
            with self.removed([(name, head)]):
                verdict = self.run()
            place = names.index(name), head
            worse[(0, *place)] = sign * (verdict.metrics[self.task.monitor] - base)
            if samples:
                pairs = zip(self.whole.outputs, verdict.outputs, strict=True)
                change = [measure("output_change", Outcome(a), Outcome(b)) for a, b in pairs]
                moved[:, place[0], place[1]] = torch.cat(change)
            progress(done + 1, len(every))
        values = {f"worse {self.task.monitor}": worse}
        values |= {"output_change": moved} if samples else {}
        return HeadImportance(names, values, None, None)

    def _profiled(self) -> tuple[dict[str, Profile], dict[str, str]]:
        """One validation that listens to the weights; layers that have none are left out."""
        profiles = {name: Profile() for name in self.sites}
        silent: dict[str, str] = {}

        def keep(name: str, x: Tensor) -> None:
            if name not in silent:
                try:
                    profiles[name].update(x)
                except ValueError as error:
                    silent[name] = str(error)

        for name in self.sites:  # one by one: a layer may have no weights to show
            try:
                with self.sites.edit("pattern", {name: lambda x, name=name: keep(name, x)}):
                    self.run()
            except ValueError as error:
                silent[name] = str(error)
            if name not in silent and not profiles[name].numbers():
                silent[name] = "its weights did not pass the tap"
        return {name: x for name, x in profiles.items() if name not in silent}, silent


def _as_it_is(batch: Any) -> Any:
    return batch


def _counting(counts: dict[str, int], name: str) -> Callable[[Tensor], None]:
    def count(x: Tensor) -> None:
        counts[name] = x.shape[-2]

    return count


def _first(output: Any) -> list[Tensor]:
    """The first tensor of floats in an output, if it has axes."""
    if isinstance(output, Tensor):
        return [output.detach().float()] if output.dim() and output.is_floating_point() else []
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)):
        return next((found for part in output if (found := _first(part))), [])
    return []


@contextmanager
def _quiet():
    """Lightning says for every trainer what it runs on."""
    logger = logging.getLogger("pytorch_lightning")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric")
        try:
            yield
        finally:
            logger.setLevel(before)
