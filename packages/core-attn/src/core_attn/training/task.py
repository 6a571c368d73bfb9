"""What a domain package trains: a network with its loss, its metrics and its pictures."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.utilities.data import extract_batch_size
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from ..allocator import keep_freed_memory
from ..weights import copy_weights, read_weights
from .exhibit import Exhibit


class Task(LightningModule):
    """A network with its loss, metrics and optimiser; the base class of every domain's tasks.

    A subclass builds `self.model` in `__init__` (from typed arguments: they become flags and
    recipe keys), and implements Lightning's `training_step`, `validation_step`, `test_step`,
    `predict_step` and `configure_optimizers`. Metrics are logged as "train/…", "val/…", "test/…".

    A task whose sizes come from its data builds `self.model` in `configure_model`, keeps them in
    `on_save_checkpoint`, and builds itself in `on_load_checkpoint` where it has not done so.

    A task that can start from a file of weights has the argument `weights: str | None = None`,
    keeps it as `self.weights`, and overrides `adapted` where files have other names or shapes.
    `fit` reads the file once, in a new run; the run's own checkpoints do not need it again.

    Attributes:
        model: the network; what `--compile` compiles.
        weights: a file that a new run starts from.
        monitor: the logged metric that decides which checkpoint is `best.ckpt`.
        mode: whether that metric should be small ("min") or large ("max").
        output_names: what an exported ONNX file calls the outputs; as torch does if empty.
    """

    model: nn.Module
    weights: str | None = None
    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    output_names: tuple[str, ...] = ()

    def on_fit_start(self) -> None:
        """Lets large tensors reuse memory on a CPU; an override calls this one too."""
        if self.device.type == "cpu":
            keep_freed_memory()

    def log(
        self, name: str, value: Any, *args: Any, batch_size: float | None = None, **options: Any
    ) -> None:
        """Lightning's, with `batch_size` as a float: it averages that over processes, too.

        Of the integers 7 and 6 they would make 6, and a mean over 13 samples would be off. So give
        it wherever a mean over samples is synced.
        """
        size: Any = None if batch_size is None else float(batch_size)
        super().log(name, value, *args, batch_size=size, **options)

    def start_from(self, path: str) -> None:
        """Copies the weights of a file into the network and says which.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no weights, or none that fit.
        """
        state, source = read_weights(path)
        rank_zero_only(print)(f"{source}: {copy_weights(self.model, self.adapted(state))}")

    def adapted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights of a file under this network's names and in its shapes; as they are by default.

        An override converts official names, resizes positions, and leaves out a head for other
        classes.
        """
        return state

    def figures(self, data: LightningDataModule) -> Iterable[Exhibit]:
        """The pictures and tables of `report`, as attention maps from taps; none by default.

        Args:
            data: the recipe's data module, prepared and set up for "test". What is yielded is drawn
                and written before the next is asked for.
        """
        return ()

    def exported(self) -> nn.Module:
        """What `export` exports: `self.model`, or that with what is done to its outputs."""
        return self.model

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Arguments of `exported()` for `export`, batch first, two or more samples.

        A task whose network takes inputs of several sizes has arguments for them, all with a
        default: `export --inputs` fills them.

        Raises:
            NotImplementedError: the task does not say; it cannot be exported.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define example_inputs")

    def open_sizes(self) -> tuple[dict[int, str], ...] | None:
        """For each of `example_inputs`, the axes besides the batch that `export` leaves open.

        Axes of one name have one size; None where only the batch is open.
        """
        return None

    def samples(self, batch: Any) -> int:
        """The number of samples in a batch, for the throughput; the first tensor's length."""
        return extract_batch_size(batch)
