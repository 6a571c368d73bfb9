"""Written English to spoken words, each with its place; nothing is lost without a word."""

import re
import unicodedata
from collections.abc import Container, Iterator

from .items import Item, Pause, Phonemes, Unspoken, Word
from .letters import GREEK, latin
from .rules import ABBREVIATIONS, RAISED, RULES, SYMBOLS, spelled

GIVEN = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
LETTER = r"[^\W\d_⁰¹²³⁴-⁹₀-₉]"
LETTERS = re.compile(rf"{LETTER}+(?:['’]{LETTER}+)*['’]?")
DOTTED = re.compile(r"(?:[^\W\d_]\.){2,}|[^\W\d_]{1,6}\.")
PAUSES = {
    ",": ",", ";": ";", ":": ":", ".": ".", "?": "?", "!": "!", "…": ",", "—": ",", "–": ",",
    "\n\n": ".", "。": ".", "،": ",", "؟": "?",
}  # fmt: skip
SILENT = "\"“”„‟«»‹›‘’‚'`´()[]{}-‐‑|•·¡¿​﻿­"
SPOKEN_ACRONYMS = {
    "NASA", "NATO", "UNESCO", "UNICEF", "OPEC", "LASER", "RADAR", "SCUBA", "AIDS", "FIFA", "NAFTA",
    "COVID", "OK",
}  # fmt: skip
SEVERAL = r"[A-Za-z°]{1,4}|[0-9]{1,2}|[!-~£¥¢]"  # what a sign like ㎏, ⑫ or ： may stand for
BEFORE_NUMBERS = ("no.", "nos.", "p.", "pp.", "vol.", "fig.")


def normalize(text: str, known: Container[str] = frozenset()) -> list[Item]:
    """The words, pauses and pieces that cannot be spoken of a text, in order.

    Every character of the text is spoken, a pause, silent punctuation, or reported.

    Args:
        text: English, with phonemes in [[ ]].
        known: words in lower case that have a pronunciation, whatever they look like.

    Example:
        >>> [item.text for item in normalize("It’s 20°C") if isinstance(item, Word)]
        ["it's", 'twenty', 'degrees', 'celsius']
        >>> [str(item) for item in normalize("hi 日本語") if isinstance(item, Unspoken)]
        ["'日本語' at 3: no English letters"]
    """
    text, starts, stops = _composed(text)
    shouts = text.upper() == text and sum(len(w) > 1 for w in LETTERS.findall(text)) > 2
    items: list[Item] = []
    at = 0
    while at < len(text):
        found, new = _next(text, at, known, shouts)
        items += new
        at = found
    return _merged([i._replace(start=starts[i.start], stop=stops[i.stop - 1]) for i in items])


def _composed(text: str) -> tuple[str, list[int], list[int]]:
    """Letters with their marks as one, signs for several as those, and where each stood."""
    parts, starts, stops = [], [], []
    for found in re.finditer(r"(?s).[\u0300-\u036f]*", text):
        part = unicodedata.normalize("NFC", found[0])
        plain = unicodedata.normalize("NFKC", part)
        if part not in SYMBOLS and ord(part[0]) not in RAISED and re.fullmatch(SEVERAL, plain):
            part = plain
        parts.append(part)
        starts += [found.start()] * len(part)
        stops += [found.end()] * len(part)
    return "".join(parts), starts, stops


def _next(text: str, at: int, known: Container[str], shouts: bool) -> tuple[int, list[Item]]:
    """What begins at a place, and where it ends."""
    if text[at].isspace():
        stop = at + 1
        while stop < len(text) and text[stop].isspace():
            stop += 1
        breaks = text.count("\n", at, stop) > 1
        return stop, [Pause(".", at, stop)] if breaks else []
    if found := GIVEN.match(text, at):
        return found.end(), [Phonemes(tuple(found[1].split()), at, found.end())]
    if given := _given(text, at, known):
        return given.stop, [given]
    for pattern, say in RULES:
        if found := pattern.match(text, at):
            return found.end(), _said(say(found), at, found.end())
    if found := DOTTED.match(text, at):
        spoken = _dotted(text, found, known)
        if spoken is not None:
            ends = (
                [Pause(".", found.end() - 1, found.end())]
                if not text[found.end() :].strip()
                else []
            )
            return found.end(), [*(Word(word, at, found.end()) for word in spoken), *ends]
    if found := LETTERS.match(text, at):
        return found.end(), _letters(found[0], at, known, shouts)
    return _sign(text, at)


def _given(text: str, at: int, known: Container[str]) -> Word | None:
    """The longest word at a place that has a pronunciation and is more than letters."""
    token = re.match(r"\S+", text[at:])
    if not known or token is None or text[at - 1 : at].isalnum():
        return None
    for stop in range(len(token[0]), 1, -1):
        word = token[0][:stop].lower()
        is_whole = not (word[-1].isalnum() and token[0][stop : stop + 1].isalnum())
        if word in known and is_whole and not word.isalpha():
            return Word(word, at, at + stop)
    return None


def _said(words: list[str], start: int, stop: int) -> list[Item]:
    """What a rule says; other letters and signs without a name that it leaves are reported."""
    items: list[Item] = []
    for word in words:
        if latin(word):
            items.append(Word(word, start, stop))
        elif word not in SILENT and word not in PAUSES:
            reason = "no English letters" if word.isalpha() else "a sign without a name"
            items.append(Unspoken(word, start, stop, reason))
    return items


def _dotted(text: str, found: re.Match[str], known: Container[str]) -> list[str] | None:
    """What an abbreviation with a point stands for; None where the point ends a sentence."""
    word = found[0].lower()
    if word == "st.":
        following = text[found.end() :].lstrip()
        before = text[: found.start()].rstrip()
        is_saint = following[:1].isupper() and not before[-1:].isalnum()
        names = before.rpartition(" ")[2][:1].isupper() or before[-1:].isdigit()
        return ["saint"] if is_saint or (following[:1].isupper() and not names) else ["street"]
    if word in BEFORE_NUMBERS or word in ("in.", "co.", "hon.", "mt.", "ft."):
        following = text[found.end() :].lstrip()[:1]
        if not (following.isdigit() if word in BEFORE_NUMBERS else following.isupper()):
            return None
    if word in ABBREVIATIONS:
        return ABBREVIATIONS[word].split()
    is_initial = len(found[0]) == 2 and found[0].isupper() and text[found.end() :].lstrip()[:1]
    if found[0].count(".") > 1 or (is_initial and text[found.end() :].lstrip()[0].isupper()):
        return spelled(found[0])
    return None


def _letters(word: str, at: int, known: Container[str], shouts: bool) -> list[Item]:
    stop = at + len(word)
    if word in GREEK:
        return [Word(GREEK[word], at, stop)]
    if (folded := latin(word)) is None:
        return [Unspoken(word, at, stop, "no English letters")]
    lower = folded.lower()
    if lower in known:
        return [Word(lower, at, stop)]
    plural = re.fullmatch(r"([A-Z]{2,})('?s)", folded)
    acronym = plural[1] if plural else folded
    if acronym.isupper() and len(acronym) > 1 and not shouts and acronym not in SPOKEN_ACRONYMS:
        letters = spelled(acronym)
        if plural:
            letters[-1] += "'s"
        return [Word(letter, at, stop) for letter in letters]
    return [Word(lower, at, stop)]


def _sign(text: str, at: int) -> tuple[int, list[Item]]:
    sign = text[at]
    if sign in PAUSES:
        stop = at + 1
        while stop < len(text) and text[stop] in PAUSES:
            stop += 1
        marks = [PAUSES[mark] for mark in text[at:stop]]
        strongest = max(marks, key=",;:.!?".index)
        dots = text[at:stop] == "..."
        return stop, [Pause("," if dots else strongest, at, stop)]
    if sign in SILENT:
        return at + 1, []
    if sign in SYMBOLS:
        return at + 1, [Word(word, at, at + 1) for word in SYMBOLS[sign].split()]
    return at + 1, [Unspoken(sign, at, at + 1, "a sign without a name")]


def _merged(items: list[Item]) -> list[Item]:
    """Neighboring signs that cannot be spoken as one: an emoji is often several."""
    return list(_joined(items))


def _joined(items: list[Item]) -> Iterator[Item]:
    held: Unspoken | None = None
    for item in items:
        if isinstance(item, Unspoken):
            if held and held.stop == item.start and held.reason == item.reason:
                held = held._replace(text=held.text + item.text, stop=item.stop)
                continue
            if held:
                yield held
            held = item
            continue
        if held:
            yield held
            held = None
        yield item
    if held:
        yield held
