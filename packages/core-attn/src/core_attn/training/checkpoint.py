"""Checkpoint files: written atomically, self-describing, checked before they are loaded."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jsonargparse import ArgumentParser
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import LightningDataModule
from torch import nn

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


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, its tensors mapped from the file; no code in it is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a checkpoint of this program.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise ValueError(f"checkpoint {path} cannot be read: {error}".splitlines()[0]) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "config"} <= checkpoint.keys():
        raise ValueError(f"checkpoint {path} was not written by this program: it has no config")
    return checkpoint


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
    """Writes beside the target, then renames: a file is either the old or the new one, whole.

    What could not be written, as on a full disk, leaves the old file and no part of the new one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Saves `checkpoint` as `path`."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException as error:
            part.unlink(missing_ok=True)
            # torch hides what the system said behind an error about positions in its archive
            said = error if isinstance(error, OSError) else error.__context__
            if isinstance(said, OSError) and said.errno is not None:
                raise OSError(said.errno, said.strerror, str(path)) from error
            raise
