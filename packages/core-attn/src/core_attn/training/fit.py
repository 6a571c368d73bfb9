"""`fit`, `validate`, `test`, `predict`: Lightning's command line with the defaults of a run."""

import json
import logging
import os
import re
import shutil
import signal
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from jsonargparse.typing import NonNegativeInt
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, ProgressBar
from pytorch_lightning.cli import LightningCLI, SaveConfigCallback
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.utilities.warnings import PossibleUserWarning
from torch import Tensor, distributed

from ..cli.errors import one_line
from ..cli.hints import with_hint
from .callbacks import Compile, LastCheckpoint, Progress, Throughput
from .checkpoint import AtomicCheckpointIO, check_fits, read_checkpoint
from .continuing import with_stored_config
from .files import write_checkpoint
from .runs import find_checkpoint, loggers, new_run
from .task import Task


def run(package: str, program: str, recipe: str | None, argv: list[str]) -> int:
    """Runs one of Lightning's subcommands, `argv[0]`, and returns the exit code."""
    _be_quiet()
    for module in ("tasks", "data"):  # so that their classes are known by name
        if find_spec(f"{package}.{module}"):
            known = import_module(f"{package}.{module}")
            for name in getattr(known, "__all__", ()):  # some are imported when they are read
                getattr(known, name)
    words = [re.sub(r"^--ckpt(=|$)", r"--ckpt_path\1", word) for word in argv]
    recipe, words = with_stored_config(recipe, words)
    DomainCLI(package, program, recipe, words)
    return 0


class DomainCLI(LightningCLI):
    """Lightning's command line with a run folder, resumable checkpoints and a stored config."""

    def __init__(self, package: str, program: str, recipe: str | None, argv: list[str]):
        self.package, self.program, self.command = package, program, argv[0]
        self.recipe = recipe or "run"
        self.folder: Path | None = None
        self.ckpt: Path | None = None
        self.last: LastCheckpoint | None = None
        self.is_new = False
        strict = {"exit_on_error": False, "allow_abbrev": False}
        try:
            super().__init__(
                Task,
                LightningDataModule,
                save_config_callback=StoreConfig,
                trainer_defaults={"default_root_dir": "runs"},
                seed_everything_default=0,
                parser_kwargs={"prog": program}
                | strict
                | {key: strict for key in self.subcommands()},
                subclass_mode_model=True,
                subclass_mode_data=True,
                args=argv,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )
        finally:
            self._leave_nothing_of_a_start()

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that runs: the flags of all four take a third of a second to describe."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser):
        """Adds the flags that Lightning does not have."""
        parser.add_argument(
            "--compile", action="store_true", help="Compile the network with torch.compile."
        )
        parser.add_argument(
            "--checkpoint_every_n_steps",
            type=NonNegativeInt,
            default=0,
            help="Write last.ckpt also within an epoch, after so many steps; 0 for never.",
        )

    def parse_arguments(self, parser, args):
        """Parses `args`; an error says what to write instead."""
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            command = self._subcommand_parsers.get(args[0], parser)
            flags = [flag for action in command._actions for flag in action.option_strings]
            classes = {
                "model": subclasses(Task),
                "data": subclasses(LightningDataModule),
                "trainer.callbacks": subclasses(Callback),
            }
            raise ArgumentError(None, with_hint(one_line(error), flags, classes)) from error

    def _parse_ckpt_path(self):
        # Lightning would take the hyperparameters out of the checkpoint; ours holds the config.
        config = self.config[self.config.subcommand]
        root = Path(config.trainer.default_root_dir)
        if config.ckpt_path in ("last", "best"):
            config.ckpt_path = str(find_checkpoint(root, self.recipe, config.ckpt_path))
        if config.ckpt_path:
            self.checkpoint = read_checkpoint(config.ckpt_path)
            self.ckpt = Path(config.ckpt_path)
            self.folder = self.ckpt.parent
        if self.config.subcommand == "fit":
            if self.folder is None or not (self.folder / "config.yaml").exists():
                self.folder, self.is_new = new_run(root, self.recipe), True
            self.save_config_kwargs = {
                "save_to_log_dir": False, "recipe": self.recipe, "package": self.package,
                "folder": self.folder,
            }  # fmt: skip
        else:
            self.save_config_callback = None

    def instantiate_classes(self) -> None:
        """Instantiates task, data and trainer."""
        self.config_init = self.parser.instantiate(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds loggers, callbacks and atomic files to what the recipe says of the trainer."""
        config = self._get(self.config_init, "trainer")
        resumed = getattr(self, "checkpoint", {}).get("global_step", 0)
        plugins = config.plugins if isinstance(config.plugins, list) else [config.plugins]
        plugins = [plugin for plugin in plugins if plugin is not None]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        if config.logger in (None, True):
            fits = self.folder is not None and self.subcommand == "fit"
            kwargs["logger"] = loggers(cast(Path, self.folder), resumed) if fits else False
        callbacks = [*(config.callbacks or []), *self._callbacks(config)]
        return super().instantiate_trainer(plugins=plugins, callbacks=callbacks, **kwargs)

    def _callbacks(self, trainer: Any) -> list:
        callbacks: list = [Compile()] if self._get(self.config_init, "compile") else []
        if self.subcommand != "fit":
            return callbacks
        callbacks.append(Throughput())
        own = any(isinstance(callback, ProgressBar) for callback in trainer.callbacks or [])
        if trainer.enable_progress_bar is not False and not own:
            callbacks.append(Progress())
        if trainer.enable_checkpointing is not False and self.folder is not None:
            every = self._get(self.config_init, "checkpoint_every_n_steps")
            self.last = LastCheckpoint(self.folder / "last.ckpt", every)
            best = ModelCheckpoint(
                self.folder, "best", self.model.monitor, mode=self.model.mode,
                enable_version_counter=False,
                save_on_train_epoch_end=False if self.model.monitor.startswith("val/") else None,
            )  # fmt: skip
            callbacks += [best, self.last]
        return callbacks

    def _run_subcommand(self, subcommand: str) -> None:
        # A task whose sizes come from its data has no weights yet; it checks when it has.
        if self.ckpt is not None and self.model.state_dict():
            check_fits(self.model, self.checkpoint, self.ckpt)
        if subcommand == "fit" and self.ckpt is None and self.model.weights is not None:
            self.model.start_from(self.model.weights)
        super()._run_subcommand(subcommand)

    def fit(self, **kwargs: Any) -> None:
        """Trains; says where the results lie and what can be done with them."""
        if self.ckpt is not None:
            step = self.checkpoint.get("global_step", 0)
            self._say(f"from {self.ckpt}, after step {step}, in {self.folder}")
        try:
            self.trainer.fit(**kwargs)
        except SystemExit as stop:  # Lightning's answer to Ctrl-C
            if not isinstance(stop.__context__, KeyboardInterrupt):
                raise
            if self.last is not None and self.last.path.exists():
                self._say(f"stopped; to continue: {self.program} fit --ckpt_path {self.last.path}")
            number = self.last.signal if self.last is not None else 0
            raise SystemExit(128 + (number or signal.SIGINT)) from None
        best = self.trainer.checkpoint_callback
        if isinstance(best, ModelCheckpoint) and best.best_model_score is not None:
            self._say(f"best {best.monitor} {best.best_model_score:.4g}: {self.folder}/best.ckpt")
            self._say(f"next: {self.program} report --ckpt {self.folder}/best.ckpt")

    def _leave_nothing_of_a_start(self) -> None:
        """Removes the folder of a new run that has not taken a step."""
        trainer = getattr(self, "trainer", None)
        stepped = trainer is not None and trainer.global_step > 0
        if self.is_new and not stepped and os.environ.get("LOCAL_RANK", "0") == "0":
            shutil.rmtree(cast(Path, self.folder), ignore_errors=True)

    def after_validate(self) -> None:
        """Keeps the metrics for the report."""
        self._keep_metrics("validate")

    def after_test(self) -> None:
        """Keeps the metrics for the report."""
        self._keep_metrics("test")

    def predict(self, **kwargs: Any) -> None:
        """Writes the predictions as a list of batches, those of several processes in one file.

        They have to be tensors with a row for each sample; else every process has its own file.
        """
        predictions, rank = self.trainer.predict(**kwargs), ""
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            distributed.all_gather_object(parts, predictions)
            if (together := dealt_back(parts)) is None:
                rank = f".{self.trainer.global_rank}"
            else:
                predictions = together
        path = self._beside_checkpoint(f"predictions{rank}.pt")
        if rank or self.trainer.is_global_zero:
            write_checkpoint(predictions, path)
        self._say(f"predictions: {path}")

    def _keep_metrics(self, name: str) -> None:
        if self.ckpt is not None and self.trainer.is_global_zero:
            metrics = {key: value.item() for key, value in self.trainer.callback_metrics.items()}
            self._beside_checkpoint(f"{name}.json").write_text(json.dumps(metrics, indent=2))

    def _beside_checkpoint(self, name: str) -> Path:
        return self.ckpt.with_suffix(f".{name}") if self.ckpt else Path(name)

    def _say(self, line: str) -> None:
        if self.trainer.is_global_zero:
            print(line, flush=True)


class StoreConfig(SaveConfigCallback):
    """Keeps the configuration in the run folder and in every checkpoint."""

    def __init__(self, *args: Any, package: str, recipe: str, folder: Path, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.package, self.recipe, self.folder = package, recipe, folder

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes config.yaml; called once, in the first process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(self._text, encoding="utf-8")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the configuration as plain data."""
        checkpoint |= {"config": self._plain, "recipe": self.recipe, "package": self.package}

    @cached_property
    def _text(self) -> str:
        """Made once, of what the parser has already checked: it takes half a second."""
        return self.parser.dump(self.config, skip_unset=False, skip_validation=True)

    @cached_property
    def _plain(self) -> dict[str, Any]:
        return yaml.safe_load(self._text)


def dealt_back(parts: Sequence[Sequence[Any] | None]) -> list[Tensor] | None:
    """Batches of several processes, to which samples were dealt in turn, as those of one.

    None where a batch is not a tensor with a row for each sample.

    Example:
        >>> dealt_back([[torch.tensor([0, 2]), torch.tensor([4])], [torch.tensor([1, 3])]])
        [tensor([0, 1, 2, 3]), tensor([4])]
    """
    together = []
    for batch in zip_longest(*(part or () for part in parts)):
        rows = [x for x in batch if x is not None]
        if not all(isinstance(x, Tensor) and x.dim() for x in rows):
            return None
        if any(x.shape[1:] != rows[0].shape[1:] for x in rows):
            return None
        turn = [torch.arange(len(x)) * len(parts) + rank for rank, x in enumerate(rows)]
        together.append(torch.cat(rows)[torch.cat(turn).argsort()])
    return together


def subclasses(base: type) -> list[type]:
    """Those imported, of every generation."""
    return [kind for child in base.__subclasses__() for kind in (child, *subclasses(child))]


def _be_quiet() -> None:
    """Keeps standard error for what the user should act on."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    warnings.filterwarnings("ignore", message=".*(Checkpoint|Experiment logs) directory.*")
    warnings.filterwarnings("ignore", message="The dirpath has changed from")
    warnings.filterwarnings("ignore", message="You're using the WeightAveraging callback with")
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")
    warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")  # Lightning with torch 2.14
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
