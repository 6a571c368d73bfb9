"""Letters of other alphabets as English ones."""

import re
import unicodedata

GREEK = {
    letter: unicodedata.name(letter).rpartition(" ")[2].lower().replace("lamda", "lambda")
    for letter in "αβγδεζηθικλμνξοπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"
}
_LATIN = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "OE", "ł": "l",
     "Ł": "L", "đ": "d", "ð": "th", "þ": "th", "ı": "i", "’": "'"}
)  # fmt: skip


def latin(word: str) -> str | None:
    """The word in English letters and apostrophes, without accents; None where it has others.

    Example:
        >>> latin("Müller’s"), latin("Straße"), latin("мир")
        ("Muller's", 'Strasse', None)
    """
    folded = unicodedata.normalize("NFKD", word.translate(_LATIN))
    folded = "".join(c for c in folded if not unicodedata.combining(c)).rstrip("'")
    return folded if re.fullmatch(r"[A-Za-z']+", folded) else None
