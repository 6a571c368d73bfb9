"""What a domain package trains: a network with its loss, its metrics and its pictures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.utilities.data import extract_batch_size
from torch import Tensor, nn

from ..allocator import keep_freed_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Exhibit(NamedTuple):
    """One picture or table of a report.

    Attributes:
        title: a few words.
        caption: what to see in it, one or two sentences.
        content: a matplotlib figure, or a table as rows with equal keys.
    """

    title: str
    caption: str
    content: "Figure | Sequence[Mapping[str, Any]]"


class Task(LightningModule):
    """A network with its loss, metrics and optimiser; the base class of every domain's tasks.

    A subclass builds `self.model` in `__init__` (from typed arguments: they become flags and
    recipe keys), and implements Lightning's `training_step`, `validation_step`, `test_step`,
    `predict_step` and `configure_optimizers`. Metrics are logged as "train/…", "val/…", "test/…".

    A task whose sizes come from its data builds `self.model` in `configure_model`, keeps them in
    `on_save_checkpoint`, and builds itself in `on_load_checkpoint` where it has not done so.

    Attributes:
        model: the network; what `--compile` compiles.
        monitor: the logged metric that decides which checkpoint is `best.ckpt`.
        mode: whether that metric should be small ("min") or large ("max").
    """

    model: nn.Module
    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"

    def on_fit_start(self) -> None:
        """Lets large tensors reuse memory on a CPU; an override calls this one too."""
        if self.device.type == "cpu":
            keep_freed_memory()

    def figures(self, data: LightningDataModule) -> Iterable[Exhibit]:
        """The pictures and tables of `report`, as attention maps from taps; none by default.

        Args:
            data: the recipe's data module, prepared and set up for "test".
        """
        return ()

    def exported(self) -> nn.Module:
        """What `export` exports: `self.model`, or that with what is done to its outputs."""
        return self.model

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Arguments of `exported()` for `export`, batch first, two or more samples.

        Raises:
            NotImplementedError: the task does not say; it cannot be exported.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define example_inputs")

    def samples(self, batch: Any) -> int:
        """The number of samples in a batch, for the throughput; the first tensor's length."""
        return extract_batch_size(batch)
