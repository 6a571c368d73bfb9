"""A synthetic corpus by SVOX Pico, made without a download."""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

RATE = 16000
SENTENCES = Path(__file__).with_name("sentences.txt")
VOLUME = 0.5  # at the usual one, loud vowels are clipped
VOICES = ("en-US", "en-GB", "de-DE", "es-ES", "fr-FR", "it-IT")


class Line(NamedTuple):
    """What one voice says.

    Attributes:
        text: in the voice's language.
        voice: one of `VOICES`.
        speed: 1 for its usual one.
        pitch: likewise.
    """

    text: str
    voice: str = "en-US"
    speed: float = 1.0
    pitch: float = 1.0


def sentences() -> list[str]:
    """The sentences of the package: short ones of LJ Speech's texts, which are public domain."""
    return SENTENCES.read_text(encoding="utf-8").splitlines()


def speak(lines: Sequence[Line], cache: Path) -> list[torch.Tensor]:
    """The waveforms of some lines, at 16 kHz; the same ones are made once only.

    A process of its own says them in order: the engine's state carries over from one to the next,
    so that only then the bytes are the same every time.

    Args:
        lines: what is said.
        cache: the folder that keeps the sound.

    Raises:
        ModuleNotFoundError: py-nanotts is not installed.
        ValueError: there is no such voice.
        RuntimeError: the engine failed.
    """
    for line in lines:
        if line.voice not in VOICES:
            raise ValueError(f"no voice {line.voice!r}; there are {', '.join(VOICES)}")
    spec = json.dumps([list(line) for line in lines], ensure_ascii=False)
    path = cache / f"pico-{hashlib.sha256((spec + str(VOLUME)).encode()).hexdigest()[:20]}.npz"
    if not path.is_file():
        if find_spec("py_nanotts") is None:
            raise ModuleNotFoundError(
                "the synthetic corpus needs py-nanotts: pip install attn-speech[corpus]"
            )
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, suffix=".npz", delete=False) as scratch:
            command = [sys.executable, "-I", __file__, scratch.name]
            done = subprocess.run(command, input=spec, text=True, capture_output=True)
        if done.returncode:
            Path(scratch.name).unlink()
            raise RuntimeError(f"Pico failed: {done.stderr.strip().splitlines()[-1:]}")
        Path(scratch.name).replace(path)
    with np.load(path) as kept:
        stops = np.cumsum(kept["lengths"])[:-1]
        return [
            torch.from_numpy(x.astype(np.float32) / 32768) for x in np.split(kept["pcm"], stops)
        ]


def digest(sounds: Sequence[torch.Tensor]) -> str:
    """A hash of waveforms, to tell whether a corpus is the same."""
    key = hashlib.sha256()
    for sound in sounds:
        key.update((sound * 32768).to(torch.int16).numpy().tobytes())
    return key.hexdigest()


def _main(path: str) -> None:
    """Says the lines of standard input into a file; runs alone in its process."""
    from py_nanotts import NanoTTS

    engine, sounds = NanoTTS(), []
    for text, voice, speed, pitch in json.load(sys.stdin):
        raw = engine.speak(text, voice=voice, speed=speed, pitch=pitch, volume=VOLUME)
        sounds.append(np.frombuffer(raw, np.int16))
    lengths = np.array([len(sound) for sound in sounds])
    np.savez(path, pcm=np.concatenate(sounds), lengths=lengths)


if __name__ == "__main__":
    _main(sys.argv[1])
