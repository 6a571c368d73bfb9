"""Patterns of written English and what is said for each, in the order in which they are tried."""

import re
from collections.abc import Callable

from . import numbers as n
from .letters import latin

Say = Callable[[re.Match[str]], list[str]]
Rule = tuple[re.Pattern[str], Say]

MONTHS = (
    "january february march april may june july august september october november december"
).split()
MONTH = (
    r"(?P<month>Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?|July?|"
    r"Aug(?:ust|\.)?|Sept?(?:ember|\.)?|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)"
)
UNITS = {
    "km/h": "kilometer per hour", "m/s": "meter per second", "mph": "mile per hour",
    "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "m": "meter",
    "kg": "kilogram", "mg": "milligram", "g": "gram", "lbs": "pound", "lb": "pound", "oz": "ounce",
    "ml": "milliliter", "l": "liter", "ft": "foot", "in": "inch", "mi": "mile", "yd": "yard",
    "°C": "degree celsius", "°F": "degree fahrenheit", "°": "degree", "%": "percent",
    "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "Hz": "hertz",
    "TB": "terabyte", "GB": "gigabyte", "MB": "megabyte", "KB": "kilobyte", "kB": "kilobyte",
    "kWh": "kilowatt hour", "kW": "kilowatt", "MW": "megawatt", "W": "watt", "V": "volt",
    "nm": "nanometer", "μm": "micrometer", "µm": "micrometer", "mA": "milliampere", "Ω": "ohm",
    "kcal": "kilocalorie", "ms": "millisecond", "min": "minute", "hrs": "hour", "hr": "hour",
    "h": "hour", "s": "second",
}  # fmt: skip
ABBREVIATIONS = {
    "mr.": "mister", "mrs.": "missus", "ms.": "miz", "dr.": "doctor", "prof.": "professor",
    "gen.": "general", "capt.": "captain", "lt.": "lieutenant", "col.": "colonel",
    "sgt.": "sergeant", "rev.": "reverend", "hon.": "honorable", "jr.": "junior",
    "sr.": "senior", "st.": "street", "ave.": "avenue", "rd.": "road", "blvd.": "boulevard",
    "apt.": "apartment", "no.": "number", "vs.": "versus", "etc.": "et cetera",
    "e.g.": "for example", "i.e.": "that is", "inc.": "incorporated", "ltd.": "limited",
    "co.": "company", "corp.": "corporation", "dept.": "department", "approx.": "approximately",
    "nos.": "numbers", "pp.": "pages", "p.": "page", "vol.": "volume", "fig.": "figure",
    "mt.": "mount", "ft.": "fort", "a.m.": "A M", "p.m.": "P M",
}  # fmt: skip
SYMBOLS = {
    "&": "and", "+": "plus", "=": "equals", "%": "percent", "@": "at", "#": "number",
    "°": "degrees", "×": "times", "÷": "divided by", "±": "plus or minus", "~": "about",
    "/": "slash", "\\": "backslash", "<": "less than", ">": "greater than", "$": "dollar",
    "£": "pound", "€": "euro", "¥": "yen", "₹": "rupee", "©": "copyright", "™": "trademark",
    "®": "registered", "*": "asterisk", "_": "underscore", "−": "minus", "§": "section",
    "µ": "micro", "…": "", "‰": "per mille", "¢": "cents", "₩": "won", "₽": "rubles",
    "₿": "bitcoin", "≤": "less than or equal to", "≥": "greater than or equal to",
    "≠": "not equal to", "≈": "approximately", "∞": "infinity", "√": "square root of",
    "№": "number", "∑": "sum", "∫": "integral", "∂": "partial", "∈": "in", "→": "to", "^": "caret",
}  # fmt: skip
IN_ADDRESSES = SYMBOLS | {".": "dot", "@": "at", "/": "slash", "-": "dash", ":": "colon"}
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉", "01234567890123456789")
DAYS = {"Mon": "monday", "Tue": "tuesday", "Wed": "wednesday", "Thu": "thursday",
        "Fri": "friday", "Sat": "saturday", "Sun": "sunday"}  # fmt: skip
DAY = r"(?:Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun)"
COUNTED_IN_ROMAN = (
    "Chapter|Part|Act|Scene|Book|Volume|Section|Article|Appendix|Class|Type|Phase|War|Bowl|Title"
)
RULERS = (
    "Louis|Henry|Edward|George|Charles|James|William|Richard|John|Paul|Pius|Benedict|Elizabeth|"
    "Mary|Catherine|Napoleon|Philip|Alexander|Nicholas|Frederick|Wilhelm|Ferdinand|Leo|Gregory|"
    "Innocent|Ivan|Peter|Alfonso|Gustav|Christian|Otto|Victor|Leopold|Ramesses|Mehmed"
)
NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
NOT_AFTER = r"(?<![\w.])"
END = r"(?!\w)"


def spelled(letters: str) -> list[str]:
    """Letter by letter; capitals are the names of letters."""
    return [letter for letter in letters.upper() if letter.isalpha()]


def _month(name: str) -> str:
    return next(month for month in MONTHS if month.startswith(name.lower().rstrip(".")[:3]))


def _clock(found: re.Match[str]) -> list[str]:
    hour, minute, second = int(found["hour"]), found["minute"], found["second"]
    half = spelled(found["half"] or "")
    words = n.cardinal(str(hour))
    if minute is not None and int(minute):
        words += ["oh", n.DIGITS[int(minute)]] if int(minute) < 10 else n.cardinal(minute)
    elif minute is not None and not half:
        words += ["o'clock"] if 1 <= hour <= 12 else ["hundred"]
    if second is not None:
        words += ["and", *n.counted(str(int(second)), "second")]
    return words + half


def _date(month: str, day: str, year: str | None) -> list[str]:
    return [month, *n.ordinal(str(int(day))), *(n.year(year) if year else [])]


def _numeric_date(found: re.Match[str]) -> list[str]:
    month, day = int(found["m"]), int(found["d"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return [w for part in (found["m"], found["d"], found["y"]) for w in n.cardinal(part)]
    year = found["y"]
    if len(year) == 2:
        return [*_date(MONTHS[month - 1], str(day), None), *n.cardinal(year)]
    return _date(MONTHS[month - 1], str(day), year)


def _decade(found: re.Match[str]) -> list[str]:
    digits = found["digits"]
    words = n.year(digits) if len(digits) == 4 else n.cardinal(digits)
    last = words[-1]
    return [*words[:-1], last[:-1] + "ies" if last.endswith("y") else last + "s"]


def _range(found: re.Match[str]) -> list[str]:
    ends = [found["low"], found["high"]]
    is_years = all(len(end) == 4 and "1000" < end < "2100" for end in ends)
    low, high = ([n.year, n.decimal][not is_years](end) for end in ends)
    unit = n.plural(UNITS[found["unit"]], False) if found["unit"] else []
    return [*low, "to", *high, *unit]


def _mixed(found: re.Match[str]) -> list[str]:
    part = n.fraction(*n.FRACTIONS[found["vulgar"]].split("/")) if found["vulgar"] else n.fraction(
        found["top"], found["bottom"]
    )  # fmt: skip
    if not found["whole"]:
        return part
    if part[0] == "one":
        part = ["a", *part[1:]]
    return [*n.cardinal(found["whole"]), "and", *part]


def _address(found: re.Match[str]) -> list[str]:
    words: list[str] = []
    for part in re.findall(r"[^\W\d_]+|\d+|.", found[0].removeprefix("https://")):
        if part.isdecimal():
            words += n.one_by_one(part)
        elif part.isalpha():
            word = (latin(part) or part).lower()
            words += spelled(word) if word in ("www", "http") else [word]
        else:
            words += (IN_ADDRESSES[part] if part in IN_ADDRESSES else part).split()
    return words


def _count(found: re.Match[str]) -> list[str]:
    unit = UNITS[found["unit"]]
    if found["power"]:
        unit = f"{'square' if found['power'] == '²' else 'cubic'} {unit}"
    return n.counted(found["number"], unit)


def _raised(found: re.Match[str]) -> list[str]:
    sign, digits = found["sign"], found["digits"].translate(RAISED)
    if not sign and digits in ("2", "3"):
        return ["squared" if digits == "2" else "cubed"]
    minus = ["minus"] if sign in ("⁻", "-", "−") else []
    return ["to", "the", "power", "of", *minus, *n.cardinal(digits)]


def _roman(letters: str) -> int | None:
    """The value of a numeral in its usual spelling; None for anything else."""
    if not re.fullmatch(r"(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})", letters) or not letters:
        return None
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}[letter] for letter in letters]
    return sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))


def _in_roman(found: re.Match[str]) -> list[str]:
    value = _roman(found["roman"])
    if value is None:
        return [found["head"].lower(), *spelled(found["roman"])]
    if found["ruler"]:
        return [found["head"].lower(), "the", *n.ordinal(str(value))]
    return [found["head"].lower(), *n.cardinal(str(value))]


def _integer(found: re.Match[str]) -> list[str]:
    digits = found[0]
    if len(digits) == 4 and "1100" <= digits < "2100":
        return n.year(digits)
    return n.cardinal(digits)


_unit = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
_sign = "".join(re.escape(sign) for sign in n.CURRENCIES)
_scales = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion", "tn": "trillion"}


def _money(found: re.Match[str]) -> list[str]:
    scale = found["scale"]
    amount = n.money(found["sign"], found["amount"], _scales.get((scale or "").lower(), scale))
    return [*n.decimal(found["low"]), "to", *amount] if found["low"] else amount


RULES: list[Rule] = [
    (re.compile(pattern), say)
    for pattern, say in (
        (r"(?:https?://|www\.)[^\s,;!?\"”’)]*[\w/]|[\w.+-]+@[\w-]+(?:\.[\w-]+)+", _address),
        (
            rf"(?P<sign>[{_sign}])\s?(?:(?P<low>{NUMBER})\s?[-–—]\s?)?(?P<amount>{NUMBER})"
            rf"(?:\s?(?P<scale>thousand|million|billion|trillion|k|K|[Bb]n|[Tt]n|m|M|b|B){END})?",
            _money,
        ),
        (
            rf"{NOT_AFTER}(?P<low>)(?P<scale>)(?P<amount>{NUMBER})\s?(?P<sign>[{_sign}])(?!\s?\d)",
            _money,
        ),
        (rf"\b(?P<a>{DAY})\.?\s?[-–—]\s?(?P<b>{DAY})\b",
         lambda f: [DAYS[f["a"][:3]], "to", DAYS[f["b"][:3]]]),
        (
            r"(?:(?<=[%°])|(?<=\d[ap]m)|(?<=\d[AP]M)|(?<=[%°] )|(?<=\d[ap]m )|(?<= [ap]m )|"
            r"(?<=\d[AP]M )|(?<= [AP]M )|(?<= [ap]m)|(?<= [AP]M)|(?<=:\d\d)|(?<=:\d\d ))"
            rf"[-–—]\s?(?=[\d{_sign}])",
            lambda f: ["to"],
        ),
        (rf"\b(?P<ruler>)(?P<head>{COUNTED_IN_ROMAN})\s+(?P<roman>[IVXLC]+)\b", _in_roman),
        (rf"\b(?P<ruler>(?P<head>{RULERS}))\s+(?P<roman>[IVXLC]{{2,}}|[VX])\b(?!\.)", _in_roman),
        (r"\b(?:Ph\.\s?D|B\.\s?Sc|M\.\s?Sc)\b\.?", lambda f: spelled(f[0])),
        (r"\b(?P<note>[CF])#", lambda f: [f["note"], "sharp"]),
        (r"(?<![\w.])\.(?=[A-Z][A-Za-z])", lambda f: ["dot"]),
        (r"(?<=\w)\.(?=(?:js|py|com|org|net|io|ai|uk|txt|pdf|csv|html?|json|zip|exe)\b)",
         lambda f: ["dot"]),
        (r"\bw/o\b", lambda f: ["without"]),
        (r"\bw/(?!\w)", lambda f: ["with"]),
        (r"\bc/o\b", lambda f: ["care", "of"]),
        (
            r"(?P<y>\d{4})-(?P<m>\d{2})-(?P<d>\d{2})(?![\d-])",
            _numeric_date,
        ),
        (rf"{NOT_AFTER}(?P<m>\d{{1,2}})/(?P<d>\d{{1,2}})/(?P<y>\d{{4}}|\d{{2}}){END}",
         _numeric_date),
        (
            rf"\b{MONTH}\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:,?\s+(?P<year>[12]\d{{3}}))?{END}",
            lambda f: _date(_month(f["month"]), f["day"], f["year"]),
        ),
        (
            rf"{NOT_AFTER}(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?{MONTH}"
            rf"(?:,?\s+(?P<year>[12]\d{{3}}))?{END}",
            lambda f: [*([] if f.string[: f.start()].lower().endswith("the ") else ["the"]),
                       *n.ordinal(f["day"]), "of", _month(f["month"]),
                       *(n.year(f["year"]) if f["year"] else [])],
        ),
        (
            rf"(?:{NOT_AFTER}|(?<=\dT))(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)"
            r"(?::(?P<second>[0-5]\d))?"
            r"(?:\s?(?P<half>[ap]\.m\.|[ap]m|[AP]M|[AP]\.M\.))?(?=Z\b|\W|_|$)",
            _clock,
        ),
        (
            rf"{NOT_AFTER}(?P<hour>1?\d)(?P<minute>)(?P<second>)"
            r"\s?(?P<half>[ap]\.m\.|[ap]m|[AP]M|[AP]\.M\.)(?!\w)",
            lambda f: n.cardinal(f["hour"]) + spelled(f["half"]),
        ),
        (
            r"(?P<degrees>\d+)°\s?(?P<minutes>\d+)[’'′](?:\s?(?P<seconds>\d+(?:\.\d+)?)[”\"″])?",
            lambda f: [
                w for part, unit in (("degrees", "degree"), ("minutes", "minute"),
                                     ("seconds", "second"))
                if f[part] for w in n.counted(f[part], unit)
            ],
        ),
        (
            r"(?P<feet>\d+)[’'′]\s?(?P<inches>\d+(?:\.\d+)?)(?:[”\"″]|'')",
            lambda f: n.counted(f["feet"], "foot") + n.counted(f["inches"], "inch"),
        ),
        (
            rf"{NOT_AFTER}\(?(?P<a>\d{{3}})\)?[ -](?P<b>\d{{3}})-(?P<c>\d{{4}}){END}",
            lambda f: n.one_by_one(f["a"] + f["b"] + f["c"]),
        ),
        (
            rf"{NOT_AFTER}(?:(?P<plus>\+)\d{{1,3}}(?:[ -]\(?\d{{1,4}}\)?){{2,}}|"
            r"\d{1,4}(?:-\d+){3,}|\d(?:-\d{3}){2}-\d{4}|\d{4}(?: \d{4}){2,}|"
            rf"\d{{3}}\.\d{{3}}\.\d{{4}}){END}",
            lambda f: [*(["plus"] if f["plus"] else []), *n.one_by_one(f[0])],
        ),
        (rf"{NOT_AFTER}\d{{3}}-\d{{4}}{END}", lambda f: n.one_by_one(f[0])),
        (rf"{NOT_AFTER}(?P<a>\d+)[-−](?P<b>\d+)(?=\s?=)",
         lambda f: [*n.cardinal(f["a"]), "minus", *n.cardinal(f["b"])]),
        (rf"{NOT_AFTER}(?P<a>\d+):(?P<b>\d){END}",
         lambda f: [*n.cardinal(f["a"]), "to", *n.cardinal(f["b"])]),
        (rf"{NOT_AFTER}(?:24/7|(?P<same>\d+)/(?P=same)){END}",
         lambda f: [w for part in f[0].split("/") for w in n.cardinal(part)]),
        (
            rf"{NOT_AFTER}(?P<low>\d+(?:\.\d+)?)\s?[-–—]\s?(?P<high>\d+(?:\.\d+)?)"
            rf"(?:\s?(?P<unit>{_unit}){END})?(?![\d/])",
            _range,
        ),
        (
            rf"{NOT_AFTER}(?:(?P<whole>\d+)[ -])?(?P<vulgar>)(?P<top>\d+)\s?[/⁄]\s?"
            rf"(?P<bottom>\d+)(?![\d/]){END}",
            _mixed,
        ),
        (rf"(?:(?P<whole>\d+)\s?)?(?P<vulgar>[{''.join(n.FRACTIONS)}])(?P<top>)(?P<bottom>)",
         _mixed),
        (rf"(?:(?<=['’])|\b)(?P<digits>[12]\d{{2}}0|[1-9]0)['’]?s{END}", _decade),
        (rf"(?P<number>[-−]?(?:{NUMBER}))\s?(?P<unit>{_unit})(?P<power>[²³])?"
         rf"(?:(?<=[°%²³])|{END})", _count),
        (r"(?<=[\w)\]])(?P<sign>⁻?)(?P<digits>[⁰¹²³⁴-⁹]+)", _raised),
        (
            rf"{NOT_AFTER}(?P<number>[-−]?(?:{NUMBER}))[eE](?P<sign>[-−+]?)(?P<digits>\d+){END}",
            lambda f: [*n.decimal(f["number"]), "times", "ten", *_raised(f)],
        ),
        (r"[₀-₉]+", lambda f: n.cardinal(f[0].translate(RAISED))),
        (r"(?<=[\w)\]])\^(?=[\w(−-])", lambda f: ["to", "the", "power", "of"]),
        (r"(?<=\d)x(?=\d)", lambda f: ["by"]),
        (r"(?<=\d)\*(?=\d)", lambda f: ["times"]),
        (rf"\b(?P<number>\d{{1,3}}(?:,\d{{3}})+|\d+)(?i:st|nd|rd|th){END}",
         lambda f: n.ordinal(f["number"])),
        (
            r"\d+(?:\.\d+){2,}",
            lambda f: [w for i, part in enumerate(f[0].split("."))
                       for w in (["point"] if i else []) + n.cardinal(part)],
        ),
        (rf"(?<![\w)])[-−](?:{NUMBER})", lambda f: n.decimal(f[0])),
        (r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+", lambda f: n.decimal(f[0])),
        (r"\.\d+", lambda f: ["point", *n.one_by_one(f[0])]),
        (r"\d+", _integer),
    )
]  # fmt: skip
