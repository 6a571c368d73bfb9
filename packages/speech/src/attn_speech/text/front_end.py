"""Words to the symbols that a model reads."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from .files import read_text
from .symbols import CHARACTERS, ENGLISH, Symbols, table


class FrontEnd(Protocol):
    """What turns words into symbols."""

    symbols: Symbols

    def pronounce(self, words: Sequence[str]) -> list[list[str]]:
        """The symbols of each word of a sentence; none for a word that cannot be spoken."""
        ...

    @property
    def known(self) -> Mapping[str, list[str]]:
        """Words whose pronunciation a user has given, and its symbols."""
        ...


class English:
    """Phonemes of American English by gruut: a lexicon with parts of speech, and rules.

    Args:
        dictionary: pronunciations that come first, by word in lower case: symbols with spaces
            between. Or a file of lines "word<tab>symbols".

    Raises:
        ValueError: a pronunciation has a symbol that is not in the table.
        ModuleNotFoundError: gruut is not installed.

    Example:
        >>> English({"attn": "ə t ˈɛ n"}).pronounce(["attn"])
        [['ə', 't', 'ˈɛ', 'n']]
    """

    symbols = ENGLISH

    def __init__(self, dictionary: Mapping[str, str] | str | Path | None = None):
        _require("gruut", "gruut gruut-lang-en")
        self._given = _dictionary(dictionary, self.symbols)

    @property
    def known(self) -> Mapping[str, list[str]]:
        """Words of the user's dictionary and their symbols."""
        return self._given

    def pronounce(self, words: Sequence[str]) -> list[list[str]]:
        """The phonemes of each word, by its part of speech in this sentence."""
        speech = self._settings.get_parts_of_speech(list(words)) if words else []
        return [
            self._given.get(word) or self._look_up(word, f"gruut:{part}")
            for word, part in zip(words, speech, strict=True)
        ]

    @cached_property
    def _settings(self) -> Any:
        with warnings.catch_warnings():  # of its dateparser, which is not used here
            warnings.simplefilter("ignore")
            from gruut.lang import get_settings

            return get_settings("en-us")

    def _look_up(self, word: str, role: str) -> list[str]:
        if word == "A":  # the letter, not the article
            return ["ˈeɪ"]
        found = self._settings.lookup_phonemes(word.lower(), role)
        word = word if word.endswith("'s") else word.lower()
        found = found or self._settings.lookup_phonemes(word)
        if not found and word.endswith("'s"):
            stem = self._look_up(word[:-2], role)
            return stem + _possessive(stem) if stem else []
        if not found and (len(word) == 1 or not set(word) & set("aeiouy")):
            letters = [self._settings.lookup_phonemes(letter) or [] for letter in word.strip("'")]
            found = [sound for letter in letters for sound in letter]
        if not found:
            found = self._settings.guess_phonemes(word)
        return [sound for sound in found or [] if sound in self.symbols]


class Characters:
    """Letters themselves, with no dependency.

    Example:
        >>> Characters().pronounce(["two"])
        [['t', 'w', 'o']]
    """

    symbols = CHARACTERS
    known: Mapping[str, list[str]] = {}

    def pronounce(self, words: Sequence[str]) -> list[list[str]]:
        """The letters of each word."""
        return [[letter for letter in word.lower() if letter in self.symbols] for word in words]


class Espeak:
    """Phonemes of espeak-ng, American English; its licence is the GPL, so it is an extra.

    Raises:
        ModuleNotFoundError: the extra is not installed.
    """

    symbols = table("espeak", [
        *"abdefhijklmnopstuvwxzæðŋɐɑɒɔəɚɛɜɡɪɹɾʃʊʌʒʔθᵻ", "ˈ", "ˌ", "ː", "̩", "ɫ", "ɬ", "r",
    ])  # fmt: skip
    known: Mapping[str, list[str]] = {}

    def __init__(self):
        for module in ("phonemizer", "espeakng_loader"):
            _require(module, "attn-speech[espeak]")

    def pronounce(self, words: Sequence[str]) -> list[list[str]]:
        """The sounds of each word for itself."""
        spoken = self._backend.phonemize(list(words), strip=True)
        return [[sound for sound in word if sound in self.symbols] for word in spoken]

    @cached_property
    def _backend(self) -> Any:
        import espeakng_loader
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper

        EspeakWrapper.set_library(espeakng_loader.get_library_path())
        EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
        return EspeakBackend("en-us", with_stress=True)


def front_end(name: str, dictionary: Mapping[str, str] | str | Path | None = None) -> FrontEnd:
    """A front end by name.

    Args:
        name: "english", "characters" or "espeak".
        dictionary: pronunciations for "english".

    Raises:
        ValueError: there is no such one, or it takes no dictionary.
    """
    if name == "english":
        return English(dictionary)
    if dictionary is not None:
        raise ValueError(f"front end {name!r} takes no dictionary")
    if name not in ("characters", "espeak"):
        raise ValueError(f"front end must be english, characters or espeak, got {name!r}")
    return Characters() if name == "characters" else Espeak()


def _possessive(stem: Sequence[str]) -> list[str]:
    if stem[-1] in ("s", "z", "ʃ", "ʒ", "t͡ʃ", "d͡ʒ"):
        return ["ɪ", "z"]
    return ["s"] if stem[-1] in ("p", "t", "k", "f", "θ") else ["z"]


def _dictionary(
    given: Mapping[str, str] | str | Path | None, symbols: Symbols
) -> dict[str, list[str]]:
    if given is None:
        return {}
    if isinstance(given, str | Path):
        rows = read_text(given).splitlines()
        rows = [row for row in rows if row.strip() and not row.startswith("#")]
        wrong = [row for row in rows if "\t" not in row]
        if wrong:
            raise ValueError(f"{given}: {wrong[0]!r} is no word, tab, symbols")
        given = dict(row.split("\t", 1) for row in rows)
    words = {word.strip().lower(): sounds.split() for word, sounds in given.items()}
    for word, sounds in words.items():
        if unknown := [sound for sound in sounds if sound not in symbols]:
            raise ValueError(f"dictionary: {word!r} has unknown symbols {unknown}")
        if not sounds or len(word.split()) != 1:
            what = "has no symbols" if not sounds else "is not one word"
            raise ValueError(f"dictionary: {word!r} {what}")
    return words


def _require(module: str, install: str) -> None:
    if find_spec(module) is None:
        raise ModuleNotFoundError(f"{module} is not installed: pip install {install}")
