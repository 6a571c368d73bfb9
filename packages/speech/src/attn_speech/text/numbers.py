"""Numbers as English words."""

import re
from decimal import Decimal

from num2words import num2words

DIGITS = "zero one two three four five six seven eight nine".split()
CURRENCIES = {
    "$": ("dollar", "cent"),
    "£": ("pound", "penny"),
    "€": ("euro", "cent"),
    "¥": ("yen", "sen"),
    "₹": ("rupee", "paisa"),
}
PLURALS = {"penny": "pence", "yen": "yen", "sen": "sen", "paisa": "paise", "foot": "feet",
           "inch": "inches"}  # fmt: skip
FRACTIONS = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8",
             "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5", "⅙": "1/6",
             "⅚": "5/6", "⅐": "1/7", "⅑": "1/9", "⅒": "1/10"}  # fmt: skip
LONGEST = 15


def plain(words: str) -> list[str]:
    """Words of letters only."""
    return re.sub(r"[-,]", " ", words).split()


def cardinal(digits: str) -> list[str]:
    """An integer, with or without commas; digit by digit where it is long or begins with 0.

    Example:
        >>> " ".join(cardinal("1,234"))
        'one thousand two hundred and thirty four'
    """
    digits = digits.replace(",", "")
    if len(digits) > LONGEST or (len(digits) > 1 and digits[0] == "0"):
        return one_by_one(digits)
    return plain(num2words(int(digits)))


def one_by_one(digits: str) -> list[str]:
    """Each digit for itself."""
    return [DIGITS[int(digit)] for digit in digits if digit.isdigit()]


def ordinal(digits: str) -> list[str]:
    """Its place in a row.

    Example:
        >>> ordinal("21")
        ['twenty', 'first']
    """
    return plain(num2words(int(digits.replace(",", "")), to="ordinal"))


def year(digits: str) -> list[str]:
    """A year as it is spoken.

    Example:
        >>> [" ".join(year(digits)) for digits in ("1999", "1905", "1900", "2007", "2024")]
        ['nineteen ninety nine', 'nineteen oh five', 'nineteen hundred', 'two thousand seven', 'twenty twenty four']
    """  # noqa: E501
    century, rest = int(digits[:2]), int(digits[2:])
    if century % 10 == 0 and rest < 10:
        return [*cardinal(str(century * 100)), *([DIGITS[rest]] if rest else [])]
    words = cardinal(str(century))
    if rest == 0:
        return [*words, "hundred"]
    return words + (["oh", DIGITS[rest]] if rest < 10 else cardinal(str(rest)))


def decimal(number: str) -> list[str]:
    """A number that may have a point, and a sign before it.

    Example:
        >>> " ".join(decimal("-3.05"))
        'minus three point zero five'
    """
    sign = ["minus"] if number[0] in "-−" else []
    whole, point, rest = number.lstrip("-−+").partition(".")
    words = cardinal(whole or "0")
    return sign + words + (["point", *one_by_one(rest)] if point and rest else [])


def counted(number: str, unit: str) -> list[str]:
    """A number with a unit, one or many.

    Example:
        >>> " ".join(counted("1", "mile")), " ".join(counted("2.5", "foot"))
        ('one mile', 'two point five feet')
    """
    return decimal(number) + plural(unit, number.replace(",", "").lstrip("-−+") == "1")


def plural(unit: str, is_one: bool) -> list[str]:
    """A unit's words, in the plural unless it is one; its last word changes, or that counted."""
    if is_one or unit == "percent" or unit.endswith("hertz"):
        return unit.split()
    head, *rest = unit.split()
    if rest and head != "degree" and rest[0] != "per":
        return [head, *plural(" ".join(rest), is_one)]
    return [PLURALS.get(head, head + "s"), *rest]


def money(sign: str, amount: str, scale: str | None) -> list[str]:
    """An amount of money.

    Example:
        >>> " ".join(money("$", "3.50", None)), " ".join(money("£", "2", "million"))
        ('three dollars fifty cents', 'two million pounds')
    """
    large, small = CURRENCIES[sign]
    if scale:
        return [*decimal(amount), scale, *plural(large, False)]
    whole, _, rest = amount.replace(",", "").partition(".")
    cents = int((rest + "00")[:2]) if rest else 0
    if len(rest) > 2:
        return decimal(amount) + plural(large, False)
    words = cardinal(whole or "0") + plural(large, int(whole or 0) == 1)
    if cents and int(whole or 0) == 0:
        words = []
    return words + (cardinal(str(cents)) + plural(small, cents == 1) if cents else [])


def fraction(top: str, bottom: str) -> list[str]:
    """A part of a whole.

    Example:
        >>> " ".join(fraction("3", "4")), " ".join(fraction("1", "2"))
        ('three quarters', 'one half')
    """
    is_one = int(top) == 1
    if int(bottom) in (0, 1) or Decimal(bottom) > 1000:
        return [*cardinal(top), "over", *cardinal(bottom)]
    name = {2: ["half"], 4: ["quarter"]}.get(int(bottom)) or ordinal(bottom)
    if not is_one:
        name = ["halves"] if int(bottom) == 2 else [*name[:-1], name[-1] + "s"]
    return cardinal(top) + name
