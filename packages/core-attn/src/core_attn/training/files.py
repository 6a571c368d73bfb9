"""Checkpoint files: self-describing, written atomically; read without the trainer."""

import os
import zipfile
from pathlib import Path
from typing import Any

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
    except Exception as error:  # damaged bytes raise whatever the unpickler stumbles over
        raise ValueError(f"checkpoint {path} cannot be read: {error}".splitlines()[0]) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "config"} <= checkpoint.keys():
        raise ValueError(f"checkpoint {path} was not written by this program: it has no config")
    return checkpoint


def write_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Writes beside the target, then renames: a file is either the old or the new one, whole.

    What could not be written, as on a full disk, leaves the old file and no part of the new one.

    Raises:
        OSError: what the system says, with the file's name.
    """
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
