"""What a text is made of, each piece with its place in it."""

from typing import NamedTuple


class Word(NamedTuple):
    """One spoken word.

    Attributes:
        text: lower-case letters and apostrophes; a capital stands for the name of a letter.
        start: where what it stands for begins in the text.
        stop: where that ends.
    """

    text: str
    start: int
    stop: int


class Pause(NamedTuple):
    """A pause between words.

    Attributes:
        mark: one of `,` `;` `:` `.` `?` `!`.
        start: where its mark begins in the text.
        stop: where it ends.
    """

    mark: str
    start: int
    stop: int

    @property
    def ends_sentence(self) -> bool:
        """Whether a sentence ends here."""
        return self.mark in ".?!"


class Phonemes(NamedTuple):
    """Phonemes given in the text itself, as [[ h ə l ˈoʊ ]].

    Attributes:
        symbols: as given.
        start: where the brackets open.
        stop: where they close.
    """

    symbols: tuple[str, ...]
    start: int
    stop: int


class Unspoken(NamedTuple):
    """A piece of the text that cannot be spoken.

    Attributes:
        text: the piece.
        start: where it begins in the text, from 0.
        stop: where it ends.
        reason: why.
    """

    text: str
    start: int
    stop: int
    reason: str

    def __str__(self) -> str:
        return f"{self.text!r} at {self.start}: {self.reason}"


Item = Word | Pause | Phonemes | Unspoken
