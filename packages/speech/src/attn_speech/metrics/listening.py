"""Judges that listen: speech recognition by pocketsphinx."""

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
import torchaudio
from jaxtyping import Float
from torch import Tensor

from ..text.items import Word
from ..text.normalize import normalize


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


def transcribe(audio: Float[Tensor, " time"], rate: int) -> list[str]:
    """The words that pocketsphinx hears.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if not can_listen():
        raise ModuleNotFoundError("pocketsphinx is not installed: pip install attn-speech[asr]")
    if rate != 16000:
        audio = torchaudio.functional.resample(audio, rate, 16000)
    pad = torch.zeros(4000)
    loud = 0.5 * audio / audio.abs().max().clamp(min=1e-9)
    pcm = (torch.cat([pad, loud, pad]) * 32767).to(torch.int16).numpy().tobytes()
    decoder = _decoder()
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return plain_words(hypothesis.hypstr) if hypothesis is not None else []


def can_listen() -> bool:
    """Whether pocketsphinx is installed."""
    return find_spec("pocketsphinx") is not None


@lru_cache(maxsize=1)
def _decoder() -> Any:
    from pocketsphinx import Decoder

    return Decoder(samprate=16000, loglevel="FATAL")
