"""Utterances with a label: spoken digits, IEMOCAP, or a table of one's own."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from core_attn.training import data_folder

from ..text.files import read_text
from . import pico

DIGITS = "zero one two three four five six seven eight nine".split()
EMOTIONS = {"ang": "anger", "neu": "neutral", "sad": "sadness", "hap": "happiness",
            "exc": "happiness"}  # fmt: skip


class Labelled(NamedTuple):
    """One utterance.

    Attributes:
        name: for messages.
        label: its class.
        group: what must not be in two parts: a speaker, a session.
        path: the sound file; None where the sound is made on demand.
        sound: makes it, at `rate`; None where it is in a file.
        rate: of the sound that is made.
    """

    name: str
    label: str
    group: str
    path: Path | None = None
    sound: Callable[[], Tensor] | None = None
    rate: int = pico.RATE


class LabelledSource:
    """A list of labelled utterances; a subclass says which."""

    def utterances(self, cache: Path) -> Sequence[Labelled]:
        """The utterances.

        Args:
            cache: a folder where what is made on demand can be kept.
        """
        raise NotImplementedError


class SpokenDigits(LabelledSource):
    """Spoken digits: files {digit}_{speaker}_{index}, or without a folder a synthetic voice.

    The groups are speakers; of the synthetic voice, its language variants at several pitches.

    Args:
        root: a folder with the files of the Free Spoken Digit Dataset, in it or in `audio` or
            `recordings`; None for the synthetic ones.
        predict: "digit", or "speaker", with the recordings' numbers modulo 5 as groups.
    """

    def __init__(self, root: str | None = None, predict: str = "digit"):
        if predict not in ("digit", "speaker"):
            raise ValueError(f"predict must be digit or speaker, got {predict!r}")
        self.root, self.predict = root, predict

    def utterances(self, cache: Path) -> Sequence[Labelled]:
        """The files, or the lines that the synthetic voice says.

        Raises:
            ValueError: the folder has no such files.
        """
        if self.root is None:
            return _pico_digits(cache)
        root, found = data_folder(self.root), []
        for path in sorted(root.rglob("*")):
            if parts := re.fullmatch(r"(\d)_([a-z]+)_(\d+)\.(?:wav|flac)", path.name):
                digit, speaker, number = parts.groups()
                label, group = DIGITS[int(digit)], speaker
                if self.predict == "speaker":
                    label, group = speaker, f"part {int(number) % 5}"
                found.append(Labelled(path.name, label, group, path))
        if not found:
            raise ValueError(f"data folder {root} holds no {{digit}}_{{speaker}}_{{index}}.wav")
        return found


class IEMOCAP(LabelledSource):
    """IEMOCAP's improvised and scripted turns; sessions are groups.

    Anger, neutral, sadness, and happiness with excitement; others are left out.

    Args:
        root: the folder with Session1 ... Session5.
    """

    def __init__(self, root: str):
        self.root = root

    def utterances(self, cache: Path) -> Sequence[Labelled]:
        """The turns whose emotion is one of the four.

        Raises:
            ValueError: the folder has no evaluations.
        """
        root, found = data_folder(self.root), []
        for path in sorted(root.glob("Session*/dialog/EmoEvaluation/*.txt")):
            session = path.parents[2].name
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                cells = line.split("\t")
                if line.startswith("[") and len(cells) > 2 and cells[2] in EMOTIONS:
                    name = cells[1]
                    folder = root / session / "sentences" / "wav" / name.rpartition("_")[0]
                    sound = folder / f"{name}.wav"
                    found.append(Labelled(name, EMOTIONS[cells[2]], session, sound))
        if not found:
            raise ValueError(f"data folder {root} holds no Session*/dialog/EmoEvaluation/*.txt")
        return found


class LabelTable(LabelledSource):
    """A CSV file with the columns path, label and group.

    Args:
        table: the file; paths in it are relative to its folder.
        labels: what labels are called in it, and what class they are; None for all as they are.
    """

    def __init__(self, table: str, labels: Mapping[str, str] | None = None):
        self.table, self.labels = table, labels

    def utterances(self, cache: Path) -> Sequence[Labelled]:
        """The rows.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a column or a cell is missing, or a label is not in the map.
        """
        path = Path(self.table)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such table")
        rows = csv.DictReader(read_text(path).splitlines())
        if missing := sorted({"path", "label", "group"} - set(rows.fieldnames or ())):
            raise ValueError(
                f"{path}: needs the columns path, label, group; misses {', '.join(missing)}"
            )
        found = []
        for number, row in enumerate(rows, 2):
            if None in row or None in row.values():
                raise ValueError(f"{path}, row {number}: not {len(rows.fieldnames or ())} cells")
            label = row["label"]
            if self.labels is not None and label not in self.labels:
                raise ValueError(
                    f"{path}, row {number}: label {label!r} of {row['path']} is not in the map of "
                    f"{', '.join(self.labels)}"
                )
            label = label if self.labels is None else self.labels[label]
            found.append(Labelled(row["path"], label, row["group"], path.parent / row["path"]))
        return found


def _pico_digits(cache: Path) -> list[Labelled]:
    lines = [
        pico.Line(word, voice, speed, pitch)
        for voice in ("en-US", "en-GB")
        for pitch in (0.7, 0.85, 1.0, 1.15, 1.3)
        for speed in (0.8, 0.9, 1.0, 1.15)
        for word in DIGITS
    ]
    made: list[Tensor] = []

    def sound(i: int) -> Tensor:
        if not made:
            made.extend(pico.speak(lines, cache))
        return made[i]

    return [
        Labelled(f"{line.text}-{i}", line.text, f"{line.voice} at pitch {line.pitch:g}",
                 sound=lambda i=i: sound(i))
        for i, line in enumerate(lines)
    ]  # fmt: skip


def segments(mel: Tensor, count: int) -> Tensor:
    """The means of a mel over equal stretches of time, in place of an encoder's layers.

    Example:
        >>> segments(torch.tensor([[0.0], [2.0], [4.0], [6.0]]), 2)[:, 0]
        tensor([1., 5.])
        >>> segments(torch.tensor([[3.0]]), 3)[:, 0]  # fewer frames than segments are repeated
        tensor([3., 3., 3.])
    """
    edges = [min(round(i * len(mel) / count), len(mel) - 1) for i in range(count)] + [len(mel)]
    return torch.stack([mel[a : max(b, a + 1)].mean(0) for a, b in pairwise(edges)])
