"""Tables of symbols: what a model's numbers stand for."""

from dataclasses import dataclass

CONSONANTS = "b d d͡ʒ f h j k l m n p s t t͡ʃ v w z ð ŋ ɡ ɹ ʃ ʒ θ".split()
VOWELS = "aɪ aʊ eɪ i oʊ u æ ɑ ɔ ɔɪ ə ɚ ɛ ɪ ʊ ʌ".split()
MARKS = [",", ";", ":", ".", "?", "!"]
BOUNDARY = " "
PAD, END = "<pad>", "<end>"


@dataclass(frozen=True)
class Symbols:
    """The symbols of a front end, in order; 0 is padding, the last one the end of a text.

    Attributes:
        front_end: whose they are.
        names: of all symbols.

    Example:
        >>> table = Symbols("toy", ("<pad>", "a", "b", "<end>"))
        >>> table.encode(["b", "a"]), len(table)
        ([2, 1], 4)
    """

    front_end: str
    names: tuple[str, ...]

    def __post_init__(self):
        if len(set(self.names)) != len(self.names) or self.names[0] != PAD or self.names[-1] != END:
            raise ValueError("symbols must be distinct, from <pad> to <end>")

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self.names[1:-1]

    def encode(self, symbols: list[str]) -> list[int]:
        """Their numbers.

        Raises:
            ValueError: one is not in the table.
        """
        number = {name: i for i, name in enumerate(self.names)}
        unknown = [symbol for symbol in symbols if symbol not in number]
        if unknown:
            raise ValueError(f"{self.front_end} has no symbols {unknown}")
        return [number[symbol] for symbol in symbols]

    def require(self, other: "Symbols") -> None:
        """Requires the same table.

        Raises:
            ValueError: it is another.
        """
        if other != self:
            raise ValueError(
                f"the checkpoint speaks the {len(self)} symbols of {self.front_end!r}, "
                f"these are the {len(other)} of {other.front_end!r}"
            )


def table(front_end: str, sounds: list[str]) -> Symbols:
    """A table of these sounds, the word boundary and the marks of pauses."""
    return Symbols(front_end, (PAD, BOUNDARY, *MARKS, *sounds, END))


ENGLISH = table(
    "english",
    [*CONSONANTS, *(stress + vowel for vowel in VOWELS for stress in ("", "ˈ", "ˌ"))],
)
CHARACTERS = table("characters", [*"abcdefghijklmnopqrstuvwxyz'"])
