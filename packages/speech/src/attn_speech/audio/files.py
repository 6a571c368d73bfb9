"""Sound files: read whatever they are, refused in one line where of no use, written safely."""

import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
import torchaudio
from jaxtyping import Float
from torch import Tensor

FULL_SCALE = 0.999
CLIPPED_SHARE = 0.01
SILENT_PEAK = 1e-4
UNKNOWN_SIZE = 0xFFFFFF00  # as a file has it that was written into a pipe


class Sound(NamedTuple):
    """A waveform as models want it, and what had to be done for that.

    Attributes:
        audio: one channel, in [-1, 1].
        rate: samples a second.
        changes: as "resampled from 44100 Hz".
    """

    audio: Float[Tensor, " time"]
    rate: int
    changes: tuple[str, ...]


def read_audio(path: str | Path, rate: int) -> Sound:
    """Reads a sound file of any rate, width and number of channels.

    Args:
        path: WAV, FLAC, OGG, or what else libsndfile knows.
        rate: that is wanted; another is resampled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, is empty, cut, silent or clipped, or has numbers that are
            none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such sound file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    try:
        with soundfile.SoundFile(path) as file:
            samples, given = file.read(dtype="float32", always_2d=True), file.samplerate
            missing = _missing_bytes(file.extra_info)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: cannot be read as sound: {error.error_string}") from None
    if missing:
        raise ValueError(f"{path}: the file is cut, {missing} bytes of sound are missing")
    check_audio(torch.from_numpy(samples.reshape(-1)), str(path))
    changes = []
    if samples.shape[1] > 1:
        changes.append(f"mixed from {samples.shape[1]} channels")
    audio = torch.from_numpy(np.ascontiguousarray(samples.mean(1)))
    if given != rate:
        changes.append(f"resampled from {given} Hz")
        audio = torchaudio.functional.resample(audio, given, rate).clamp(-1, 1)
    check_audio(audio, str(path))  # channels may have cancelled each other
    return Sound(audio, rate, tuple(changes))


def check_audio(audio: Float[Tensor, " time"], name: str) -> None:
    """Requires sound in [-1, 1].

    Raises:
        ValueError: it is empty, silent, clipped, or has numbers that are none.
    """
    if len(audio) == 0:
        raise ValueError(f"{name}: has no samples")
    if not bool(audio.isfinite().all()):
        raise ValueError(f"{name}: has NaN or infinite samples")
    peak = float(audio.abs().max())
    if peak > 1:
        raise ValueError(f"{name}: samples reach {peak:.3g}, they must be in [-1, 1]")
    if peak < SILENT_PEAK:
        raise ValueError(f"{name}: is silent, its peak is {peak:.1g}")
    clipped = float((audio.abs() >= FULL_SCALE).float().mean())
    if clipped > CLIPPED_SHARE:
        raise ValueError(f"{name}: is clipped, {clipped:.1%} of its samples are at full scale")


def trim(
    audio: Float[Tensor, " time"],
    rate: int,
    *,
    below_db: float = 40.0,
    head: float = 0.05,
    tail: float = 0.1,
) -> Float[Tensor, " kept"]:
    """Cuts silence at both ends but for a little.

    Args:
        audio: a waveform.
        rate: samples a second.
        below_db: how far below the loudest 10 ms silence is.
        head: seconds kept before the first sound.
        tail: seconds kept after the last.

    Source: Li et al., 2019, arXiv 1809.08895, section 4.1, for the silence that is kept.

    Example:
        >>> audio = torch.cat([torch.zeros(800), torch.ones(800), torch.zeros(800)])
        >>> len(trim(audio, 1000))
        950
    """
    step = max(1, rate // 100)
    energy = audio[: len(audio) // step * step].unflatten(0, (-1, step)).square().mean(1)
    if len(energy) == 0:
        return audio
    loud = (energy > energy.max() * 10 ** (-below_db / 10)).nonzero()[:, 0]
    start = int(loud[0]) * step - round(head * rate)
    stop = (int(loud[-1]) + 1) * step + round(tail * rate)
    return audio[max(start, 0) : stop]


def leveled(audio: Float[Tensor, " time"], decibels: float = -23.0) -> Float[Tensor, " time"]:
    """The waveform at a mean power in decibels of full scale, or as loud as its peak allows."""
    gain = 10 ** (decibels / 20) / audio.square().mean().sqrt().clamp(min=1e-9)
    return audio * torch.minimum(gain, 0.98 / audio.abs().max().clamp(min=1e-9))


class WavWriter:
    """Writes 16-bit WAV in pieces; the file is complete after each.

    Args:
        path: the file.
        rate: samples a second.
    """

    def __init__(self, path: str | Path, rate: int):
        self.path, self.rate, self.frames = Path(path), rate, 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("wb")
        self._file.write(_header(rate, 0))
        self._file.flush()

    def write(self, audio: Float[Tensor, " time"]) -> None:
        """Appends samples in [-1, 1]."""
        pcm = (audio.clamp(-1, 1) * 32767).round().to(torch.int16).numpy()
        self._file.seek(0, os.SEEK_END)
        self._file.write(pcm.tobytes())
        self._file.flush()
        self.frames += len(pcm)
        self._file.seek(0)
        self._file.write(_header(self.rate, self.frames))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> "WavWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wav_bytes(audio: Float[Tensor, " time"], rate: int) -> bytes:
    """A 16-bit WAV file."""
    pcm = (audio.clamp(-1, 1) * 32767).round().to(torch.int16).numpy().tobytes()
    return _header(rate, len(pcm) // 2) + pcm


def said(changes: Iterable[tuple[str, ...]]) -> str:
    """How many files were changed in which way, in one line; empty for none."""
    counts: dict[str, int] = {}
    for change in changes:
        for what in change:
            counts[what] = counts.get(what, 0) + 1
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def _header(rate: int, frames: int) -> bytes:
    size = 2 * frames
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size),
    )


def _missing_bytes(info: str) -> int:
    """How much of the samples that a file announces is not in it, by what libsndfile says of it."""
    for announced, there in re.findall(
        r"^ *(?:data|SSND|riff) : (\d+) \(should be (\d+)\)", info, re.M
    ):
        if int(there) < int(announced) < UNKNOWN_SIZE:
            return int(announced) - int(there)
    return 0
