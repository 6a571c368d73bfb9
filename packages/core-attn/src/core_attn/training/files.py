"""Checkpoint files: self-describing, written atomically; read without the trainer."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, its tensors mapped from the file; no code in it is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a checkpoint of this program.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    if not zipfile.is_zipfile(path):  # what torch would say is about its own options
        raise ValueError(f"checkpoint {path} cannot be read: it is empty, cut or no checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:  # torch would advise to run what it holds
        why = "it is damaged, or holds code"
        raise ValueError(f"checkpoint {path} cannot be read: {why}") from error
    except Exception as error:  # damaged bytes raise whatever the unpickler stumbles over
        raise ValueError(f"checkpoint {path} cannot be read: {error}".splitlines()[0]) from error
    known = isinstance(checkpoint, dict) and {"state_dict", "recipe"} <= checkpoint.keys()
    config = checkpoint.get("config") if known else None  # others may keep their own there
    if not isinstance(config, dict) or not {"model", "data"} <= config.keys():
        raise ValueError(f"checkpoint {path} was not written by this program: it has no config")
    return checkpoint


def write_checkpoint(checkpoint: Any, path: str | Path) -> None:
    """Writes as `write_whole` does what torch can save."""
    write_whole(path, lambda file: torch.save(checkpoint, file))


def write_whole(path: str | Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes beside the target, then renames: a file is either the old or the new one, whole.

    What could not be written, as on a full disk, leaves the old file and no part of the new one.

    Args:
        path: the file.
        write: puts its content into what it is given.

    Raises:
        OSError: what the system says, with the file's name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            write(file)
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
