"""What a checkpoint holds, opened and checked before it is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jsonargparse import ArgumentParser
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import LightningDataModule
from torch import nn

from .files import read_checkpoint, write_checkpoint
from .task import Task


class Trained(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        path: the file.
        task: trained, in eval mode on the CPU.
        content: the file's other entries, as "config", "recipe", "epoch".
    """

    path: Path
    task: Task
    content: dict[str, Any]


class Opened(NamedTuple):
    """A checkpoint and its data.

    Attributes:
        path: the file.
        task: trained, in eval mode on the CPU.
        data: the data module as configured then.
        content: the file's other entries, as "config", "recipe", "epoch".
    """

    path: Path
    task: Task
    data: LightningDataModule
    content: dict[str, Any]


def trained(path: str | Path) -> Trained:
    """Opens a checkpoint without its data, which need not be there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a checkpoint of this program, or does not fit its own model.
    """
    content = read_checkpoint(path)
    task = _built(Task, content["config"]["model"])
    task.on_load_checkpoint(content)  # where a network's sizes come from data, it is built here
    check_fits(task, content, path)
    task.load_state_dict(content["state_dict"])
    return Trained(Path(path), task.eval(), content)


def opened(
    path: str | Path, stage: Literal["fit", "validate", "test", "predict"] | None = None
) -> Opened:
    """Opens a checkpoint and its data once, for everything that is done with them.

    Args:
        path: the file.
        stage: what the data are prepared and set up for; None leaves them alone.

    Raises:
        FileNotFoundError: there is no such file, or the data are not where they were.
        ValueError: it is not a checkpoint of this program, or does not fit its own model.
    """
    path, task, content = trained(path)
    data = _built(LightningDataModule, content["config"]["data"])
    if stage is not None:
        data.prepare_data()
        data.setup(stage)
    return Opened(path, task, data, content)


def _built(base: type, config: Mapping[str, Any]) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "part")
    return parser.instantiate(parser.parse_object({"part": dict(config)})).part


def check_fits(task: nn.Module, checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Requires that the weights in `checkpoint` are those of `task`, by name and shape.

    Raises:
        ValueError: they are not; the message names both models and the keys that differ.
    """
    have, want = checkpoint["state_dict"], task.state_dict()
    reshaped = [key for key in want if key in have and have[key].shape != want[key].shape]
    problems = {
        "missing": [key for key in want if key not in have],
        "unknown": [key for key in have if key not in want],
        "of another shape": [
            f"{key} {tuple(have[key].shape)} instead of {tuple(want[key].shape)}"
            for key in reshaped
        ],
    }
    said = "; ".join(
        f"{len(keys)} {problem} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for problem, keys in problems.items()
        if keys
    )
    if said:
        model = checkpoint["config"]["model"]["class_path"].rpartition(".")[2]
        raise ValueError(
            f"checkpoint {path} holds a {model} (recipe {checkpoint.get('recipe')}) that does not "
            f"fit this {type(task).__name__}; weights: {said}"
        )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes as `write_checkpoint` does: a file is either the old or the new one, whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Saves `checkpoint` as `path`."""
        write_checkpoint(checkpoint, path)
