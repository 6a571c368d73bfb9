"""Text to the symbols that a model reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .front_end import Characters, English, Espeak, FrontEnd, front_end
from .items import Unspoken
from .normalize import normalize
from .script import Script, read, split
from .symbols import CHARACTERS, ENGLISH, Symbols

__all__ = [
    "phonemes",
    "PhonemeList",
    "normalize",
    "read",
    "split",
    "Script",
    "Unspoken",
    "Symbols",
    "ENGLISH",
    "CHARACTERS",
    "FrontEnd",
    "front_end",
    "English",
    "Characters",
    "Espeak",
]


class PhonemeList(NamedTuple):
    """What `phonemes` gives.

    Attributes:
        tokens: symbols, with " " between words and the marks of pauses.
        unspoken: pieces of the text that cannot be spoken, with their places.
    """

    tokens: list[str]
    unspoken: list[Unspoken]


def phonemes(text: str, dictionary: Mapping[str, str] | str | Path | None = None) -> PhonemeList:
    """The phonemes of an English text, and what in it could not be spoken.

    Args:
        text: with phonemes of your own in [[ ]].
        dictionary: pronunciations that come first; see `English`.

    Raises:
        ValueError: the text is empty, or nothing in it can be spoken.
        ModuleNotFoundError: gruut is not installed.

    Example:
        >>> tokens, unspoken = phonemes("A café 🙂.")
        >>> " ".join(tokens), [str(piece) for piece in unspoken]
        ('ə   k æ f ˈeɪ .', ["'🙂' at 7: a sign without a name"])
    """
    script = read(text, English(dictionary))
    return PhonemeList(script.tokens, list(script.unspoken))
