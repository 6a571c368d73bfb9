"""Recordings with their texts, prepared once: read, trimmed, levelled, pronounced, and kept."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..audio.features import MelFeatures
from ..audio.files import check_audio, leveled, read_audio, said, trim
from ..text.front_end import FrontEnd
from ..text.script import read

FORMAT = 3


class Clip(NamedTuple):
    """One recording.

    Attributes:
        name: of its own.
        text: what is said.
        speaker: who says it.
        path: the sound file; None where the sound is made on demand.
        sound: makes it, at the features' rate, in [-1, 1]; None where it is in a file.
    """

    name: str
    text: str
    speaker: str = ""
    path: Path | None = None
    sound: Callable[[], Float[Tensor, " time"]] | None = None


class Utterance(NamedTuple):
    """A clip as models see it.

    Attributes:
        name: of the clip.
        text: what is said.
        tokens: its symbols.
        mel: log mels.
        audio: the trimmed waveform, mel frames times hop long.
        speaker: the number of the speaker.
    """

    name: str
    text: str
    tokens: Int[Tensor, " tokens"]
    mel: Float[Tensor, "frames mels"]
    audio: Float[Tensor, " time"]
    speaker: int


@dataclass(frozen=True)
class Preparation:
    """What is done to clips.

    Attributes:
        features: of the mels.
        min_seconds: shorter clips are refused.
        max_seconds: longer ones are.
        trim_db: how far below the loudest 10 ms silence is.
        loudness: decibels of full scale.
    """

    features: MelFeatures
    min_seconds: float = 0.1
    max_seconds: float = 20.0
    trim_db: float = 40.0
    loudness: float = -23.0


class Prepared:
    """Clips on the disk, ready for training.

    Args:
        folder: that `prepare` made.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.rows: list[dict[str, Any]] = index["clips"]
        self.refused: dict[str, list[str]] = index["refused"]
        self.changes: str = index["changes"]
        self.mels: int = index["mels"]
        self.hop: int = index["hop"]
        self.rate: int = index["rate"]
        self.speakers = sorted({row["speaker"] for row in self.rows})
        count = sum(row["frames"] for row in self.rows)
        self._mel = np.memmap(folder / "mel.f32", np.float32, "r", shape=(count, self.mels))
        self._audio = np.memmap(folder / "audio.i16", np.int16, "r", shape=(count * self.hop,))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Utterance:
        row = self.rows[i]
        start, stop = row["start"], row["start"] + row["frames"]
        audio = self._audio[start * self.hop : stop * self.hop].astype(np.float32) / 32767
        return Utterance(
            row["name"], row["text"], torch.tensor(row["tokens"]),
            torch.from_numpy(np.array(self._mel[start:stop])), torch.from_numpy(audio),
            self.speakers.index(row["speaker"]),
        )  # fmt: skip

    def frames(self, i: int) -> int:
        """Of a clip."""
        return self.rows[i]["frames"]

    def summary(self, name: str) -> str:
        """One line: how many clips, hours and speakers, and what was refused for which reason."""
        hours = sum(row["frames"] for row in self.rows) * self.hop / self.rate / 3600
        line = f"{name}: {len(self)} clips, {hours:.2f} h, {len(self.speakers)} speaker(s)"
        if self.changes:
            line += f"; {self.changes}"
        for reason, names in self.refused.items():
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            line += f"; refused {len(names)}: {reason} ({shown})"
        return line


def prepare(
    clips: Sequence[Clip], preparation: Preparation, front_end: FrontEnd, cache: Path
) -> Prepared:
    """Prepares clips, or takes what was prepared of the same ones in the same way.

    A clip that is of no use is left out and listed with its reason.

    Args:
        clips: recordings with texts.
        preparation: what is done to them.
        front_end: what pronounces the texts.
        cache: the folder that keeps the results.

    Raises:
        ValueError: two clips have the same name, or none is of use.
    """
    names = [clip.name for clip in clips]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"clips with the same name: {', '.join(twice[:5])}")
    target = cache / f"clips-{_digest(clips, preparation, front_end)}"
    if not (target / "index.json").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _write(clips, preparation, front_end, Path(scratch))
            part = Path(f"{scratch}-done")
            shutil.copytree(scratch, part)
        try:
            part.replace(target)
        except OSError:  # another process was first
            shutil.rmtree(part)
    return Prepared(target)


def cache_folder() -> Path:
    """Where this package keeps what it made, for the user."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "attn_speech"


def _write(
    clips: Sequence[Clip], preparation: Preparation, front_end: FrontEnd, folder: Path
) -> None:
    features, rows, start = preparation.features.unscaled, [], 0
    refused: dict[str, list[str]] = {}
    changes: list[tuple[str, ...]] = []
    with (folder / "mel.f32").open("wb") as mels, (folder / "audio.i16").open("wb") as audios:
        for clip in clips:
            try:
                tokens, audio, changed = _one(clip, preparation, front_end)
            except (ValueError, OSError) as error:
                reason = str(error).removeprefix(f"{clip.path}: ").removeprefix(f"{clip.name}: ")
                refused.setdefault(_kind(reason), []).append(clip.name)
                continue
            mel = features.log_mel(audio)
            frames = len(audio) // features.hop
            mels.write(mel[:frames].numpy().tobytes())
            pcm = (audio[: frames * features.hop] * 32767).round().to(torch.int16)
            audios.write(pcm.numpy().tobytes())
            changes.append(changed)
            rows.append(
                {
                    "name": clip.name, "text": clip.text, "tokens": tokens, "start": start,
                    "frames": frames, "speaker": clip.speaker,
                }
            )  # fmt: skip
            start += frames
    if not rows:
        raise ValueError(f"no clip is of use: {counted(refused) or 'there are none'}")
    index = {
        "clips": rows, "refused": refused, "changes": said(changes), "mels": features.mels,
        "hop": features.hop, "rate": features.rate,
    }  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")


def counted(refused: dict[str, list[str]]) -> str:
    """How many clips were refused for which reason; empty for none."""
    return "; ".join(f"{len(names)}: {reason}" for reason, names in refused.items())


def _one(
    clip: Clip, preparation: Preparation, front_end: FrontEnd
) -> tuple[list[int], Tensor, tuple[str, ...]]:
    features = preparation.features
    changed: tuple[str, ...] = ()
    if clip.sound is not None:
        audio = clip.sound()
        check_audio(audio, clip.name)
    elif clip.path is not None:
        audio, _, changed = read_audio(clip.path, features.rate)
    else:
        raise ValueError("there is no sound file for it")
    script = read(clip.text, front_end)
    if script.unspoken:
        raise ValueError(f"its text has what cannot be spoken: {script.unspoken[0]}")
    audio = trim(audio, features.rate, below_db=preparation.trim_db)
    seconds = len(audio) / features.rate
    if not preparation.min_seconds <= seconds <= preparation.max_seconds:
        raise ValueError(
            f"it does not last {preparation.min_seconds:g} ... {preparation.max_seconds:g} s"
        )
    if len(audio) <= features.fft // 2:
        raise ValueError(f"it is shorter than a frame of {features.fft} samples")
    tokens = front_end.symbols.encode(script.tokens)
    return tokens, leveled(audio, preparation.loudness), changed


def _kind(reason: str) -> str:
    """The reason without what is of one clip only."""
    for mark in (", its peak", ": '"):
        reason = reason.partition(mark)[0]
    reason = re.sub(r"reach \S+, they must be in", "leave", reason)
    reason = re.sub(r", \d+ bytes of sound.*", "", reason)
    return re.sub(r"\d[\d.]*% (?=of its samples)", "", reason)


def _digest(clips: Sequence[Clip], preparation: Preparation, front_end: FrontEnd) -> str:
    key = hashlib.sha256(repr((FORMAT, preparation, front_end.symbols, front_end.known)).encode())
    for clip in clips:
        stat = clip.path.stat() if clip.path is not None and clip.path.exists() else None
        stamp = None if stat is None else (stat.st_size, stat.st_mtime_ns)
        key.update(repr((clip.name, clip.text, clip.speaker, str(clip.path), stamp)).encode())
    return key.hexdigest()[:20]
