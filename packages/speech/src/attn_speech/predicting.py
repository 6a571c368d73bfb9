"""`predict` of vocoders and classifiers: what they make of one's own sounds."""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from core_attn.training import Opened

from .audio.features import MelFeatures
from .audio.files import WavWriter, read_audio, said
from .data.sources import SOUNDS
from .data.utterances import UtteranceData
from .tasks import UtteranceClassification, Vocoding

Made = TypeVar("Made")


class Done(NamedTuple):
    """What became of some files; one that is of no use is told and left out.

    Attributes:
        files: how many there are.
        used: of them.
        changes: what was done to those, in one line.
    """

    files: int
    used: int
    changes: str


def predict_sounds(
    found: Opened, input: str, output: str, seed: int = 0, speaker: str | None = None
) -> Done:
    """Makes sound of the mels of sounds, by a vocoder; or writes their classes, by a classifier.

    Args:
        found: the checkpoint.
        input: a sound file, or a folder of them; a vocoder reads log mels too, as .npy files of
            frames by bands.
        output: the folder to write: a WAV file for each, or "classes.csv".
        seed: of what is drawn.
        speaker: a name, where a vocoder knows several.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: no file is there, or the checkpoint is of another task.
    """
    paths, folder = _files(input), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    changes: list[tuple[str, ...]] = []
    if isinstance(found.task, Vocoding):
        used = _draw(found.task, paths, folder, changes, seed % 2**63, speaker)
    elif isinstance(found.task, UtteranceClassification):
        used = _classify(found.task, found.data, paths, folder, changes)
    else:
        raise ValueError(f"{found.path} is of {type(found.task).__name__}, not of sounds")
    return Done(len(paths), used, said(changes))


def _draw(
    task: Vocoding,
    paths: list[Path],
    folder: Path,
    changes: list[tuple[str, ...]],
    seed: int,
    speaker: str | None,
) -> int:
    names: set[str] = set()

    def drawn(path: Path) -> Tensor:
        if path.stem in names:
            raise ValueError(f"{path}: the name {path.stem!r} is there twice")
        names.add(path.stem)
        [audio] = task.drawing([_log_mel(path, task.features, changes)], [seed], speaker)
        return audio

    used = 0
    for path, audio in _each(paths, drawn):
        with WavWriter(folder / f"{path.stem}.wav", task.features.rate) as file:
            file.write(audio)
        used += 1
    return used


def _classify(
    task: UtteranceClassification,
    data: object,
    paths: list[Path],
    folder: Path,
    changes: list[tuple[str, ...]],
) -> int:
    assert isinstance(data, UtteranceData)
    if task.statistics is None:
        raise ValueError("the checkpoint has no statistics of its features; train anew")
    statistics = task.statistics

    @torch.no_grad()
    def shares(path: Path) -> list[float]:
        audio, _, changed = read_audio(path, data.rate)
        x = torch.stack([data.stacked(part) for part in data.parts_of(audio)])
        changes.append(changed)
        return task.model(statistics.scaled(x)).softmax(-1).mean(0).tolist()

    used = 0
    with (folder / "classes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "class", *(f"p({name})" for name in task.class_names)])
        for path, row in _each(paths, shares):
            best = task.class_names[row.index(max(row))]
            table.writerow([str(path), best, *(f"{x:.6g}" for x in row)])
            used += 1
    return used


def _each(paths: Iterable[Path], make: Callable[[Path], Made]) -> Iterator[tuple[Path, Made]]:
    """What is made of each file; one of no use is told."""
    for path in paths:
        try:
            yield path, make(path)
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr)


def _log_mel(path: Path, features: MelFeatures, changes: list[tuple[str, ...]]) -> Tensor:
    if path.suffix == ".npy":
        mel = torch.from_numpy(np.load(path, allow_pickle=False)).float()
        if mel.dim() != 2 or mel.shape[1] != features.mels or not len(mel):
            raise ValueError(
                f"{path}: log mels must be (frames, {features.mels}), got {tuple(mel.shape)}"
            )
        if not bool(mel.isfinite().all()):
            raise ValueError(f"{path}: has NaN or infinite values")
        return mel
    audio, _, changed = read_audio(path, features.rate)
    mel = features.log_mel(audio)[: len(audio) // features.hop]
    changes.append(changed)
    return mel


def _files(given: str) -> list[Path]:
    path, ends = Path(given), (*SOUNDS, ".npy")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_file():
        return [path]
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in ends and not file.name.startswith(".")
    ]
    if not found:
        raise ValueError(f"{path}: there is no sound file in it")
    return found
