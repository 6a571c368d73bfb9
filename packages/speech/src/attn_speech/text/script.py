"""A text as a model reads it: symbols, each with the word it belongs to."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .front_end import English, FrontEnd
from .items import Item, Pause, Phonemes, Unspoken, Word
from .normalize import normalize
from .symbols import BOUNDARY


class Spelled(NamedTuple):
    """One word, or one pause, with its symbols.

    Attributes:
        item: what it is in the text.
        symbols: at least one.
    """

    item: Word | Pause | Phonemes
    symbols: tuple[str, ...]


class Script(NamedTuple):
    """A text, or a piece of one, ready for a model.

    Attributes:
        parts: words and pauses in order.
        unspoken: pieces of the text that cannot be spoken.
    """

    parts: tuple[Spelled, ...]
    unspoken: tuple[Unspoken, ...]

    @property
    def tokens(self) -> list[str]:
        """The symbols, with the boundary between words."""
        return [symbol for symbol, _ in self.owned()]

    @property
    def words(self) -> list[Word | Phonemes]:
        """What is spoken."""
        return [part.item for part in self.parts if not isinstance(part.item, Pause)]

    def owned(self) -> Iterator[tuple[str, int | None]]:
        """Each symbol with the number of its word; pauses and boundaries have none."""
        word = -1
        for i, part in enumerate(self.parts):
            is_pause = isinstance(part.item, Pause)
            if i and not is_pause:
                yield BOUNDARY, None
            if not is_pause:
                word += 1
            for symbol in part.symbols:
                yield symbol, None if is_pause else word


def read(text: str, front_end: FrontEnd | None = None) -> Script:
    """Turns a text into symbols; what cannot be spoken is listed with its place.

    Args:
        text: in English.
        front_end: what pronounces words; `English` by default.

    Raises:
        ValueError: the text is empty, or nothing in it can be spoken.

    Example:
        >>> from attn_speech.text.front_end import Characters
        >>> script = read("Hi, 2!", Characters())
        >>> "".join(script.tokens)
        'hi, two!'
        >>> read(" ")
        Traceback (most recent call last):
        ValueError: text is empty after normalisation
    """
    front_end = front_end or English()
    items = normalize(text, front_end.known)
    parts: list[Spelled] = []
    unspoken: list[Unspoken] = []
    for sentence in _sentences(items):
        words = [item.text for item in sentence if isinstance(item, Word)]
        sounds = iter(front_end.pronounce(words))
        for item in sentence:
            if isinstance(item, Unspoken):
                unspoken.append(item)
            elif isinstance(item, Word):
                symbols = tuple(next(sounds))
                if symbols:
                    parts.append(Spelled(item, symbols))
                else:
                    reason = "no pronunciation"
                    unspoken.append(Unspoken(item.text, item.start, item.stop, reason))
            elif isinstance(item, Phonemes):
                parts += _given(item, front_end, unspoken)
            elif parts and not isinstance(parts[-1].item, Pause):
                parts.append(Spelled(item, (item.mark,)))
            elif parts and item.ends_sentence and not _ends_sentence(parts[-1].item):
                parts[-1] = Spelled(item, (item.mark,))
    if not any(not isinstance(part.item, Pause) for part in parts):
        what = "; ".join(map(str, unspoken))
        detail = f"nothing in it can be spoken: {what}" if what else "empty after normalisation"
        raise ValueError(f"text is {detail}" if not what else f"text: {detail}")
    return Script(tuple(parts), tuple(unspoken))


def split(script: Script, limit: int) -> list[Script]:
    """Pieces of at most `limit` symbols: sentences; where longer, clauses; where longer, words.

    Nothing is left out: the pieces' parts are the script's, in order.

    Raises:
        ValueError: the limit is below 1.

    Example:
        >>> from attn_speech.text.front_end import Characters
        >>> script = read("One. Two, three four.", Characters())
        >>> ["".join(piece.tokens) for piece in split(script, 9)]
        ['one.', 'two,', 'three', 'four.']
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    pieces = []
    for sentence in _cut(script.parts, _ends_sentence):
        pieces += _fit(sentence, limit)
    return [Script(tuple(piece), ()) for piece in pieces]


def _fit(sentence: list[Spelled], limit: int) -> list[list[Spelled]]:
    if _length(sentence) <= limit:
        return [sentence]
    pieces: list[list[Spelled]] = []
    for clause in _cut(sentence, lambda item: isinstance(item, Pause)):
        parts = [clause] if _length(clause) <= limit else _cut(clause, _is_word)
        for part in parts:
            only_pause = all(isinstance(spelled.item, Pause) for spelled in part)
            if pieces and (only_pause or _length([*pieces[-1], *part]) <= limit):
                pieces[-1] = [*pieces[-1], *part]
            else:
                pieces.append(part)
    return pieces


def _ends_sentence(item: Item) -> bool:
    return isinstance(item, Pause) and item.ends_sentence


def _is_word(item: Item) -> bool:
    return not isinstance(item, Pause)


def _cut(parts: Sequence[Spelled], ends) -> list[list[Spelled]]:
    pieces: list[list[Spelled]] = [[]]
    for part in parts:
        pieces[-1].append(part)
        if ends(part.item):
            pieces.append([])
    return [piece for piece in pieces if piece]


def _length(parts: Sequence[Spelled]) -> int:
    words = sum(not isinstance(part.item, Pause) for part in parts)
    return sum(len(part.symbols) for part in parts) + max(words - 1, 0)


def _sentences(items: Sequence[Item]) -> Iterator[list[Item]]:
    sentence: list[Item] = []
    for item in items:
        sentence.append(item)
        if isinstance(item, Pause) and item.ends_sentence:
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def _given(item: Phonemes, front_end: FrontEnd, unspoken: list[Unspoken]) -> list[Spelled]:
    unknown = [symbol for symbol in item.symbols if symbol not in front_end.symbols]
    if unknown or not item.symbols:
        reason = f"unknown phonemes {' '.join(unknown)}" if unknown else "no phonemes"
        unspoken.append(Unspoken(" ".join(item.symbols), item.start, item.stop, reason))
        return []
    return [Spelled(item, item.symbols)]
