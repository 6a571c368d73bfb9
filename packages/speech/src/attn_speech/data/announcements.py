"""Announcements: sentences of few words in many orders, for a voice that learns in minutes."""

import random
from collections.abc import Sequence

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
    "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth",
    "eighteenth", "nineteenth", "twentieth", "thirtieth",
)  # fmt: skip
ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
    "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty")
CITIES = (
    "London", "Paris", "Madrid", "Berlin", "Boston", "Chicago", "Dublin", "Vienna", "Oslo", "Rome",
)  # fmt: skip
VEHICLES = ("train", "bus", "boat", "plane", "ferry")
WEATHER = ("sunny", "windy", "cold", "warm", "cloudy", "rainy", "dry", "foggy")
COLORS = ("red", "green", "blue", "white", "black", "yellow")
PLACES = ("station", "airport", "harbor", "museum", "market", "hotel", "garden", "library")
MOST = 5000  # some 14,000 are possible; near that, draws find few new ones


def announcements(count: int, seed: int = 0) -> list[str]:
    """Different sentences on times, dates, numbers, weather and ways; the same for a seed.

    Args:
        count: of sentences.
        seed: of the draws.

    Raises:
        ValueError: so many are not made.

    Example:
        >>> announcements(2)
        ['Please take bus three to the market.', 'Please take bus fifty-nine to the market.']
    """
    if not 0 <= count <= MOST:
        raise ValueError(f"count must be 0 ... {MOST}, got {count}")
    draw, made = random.Random(seed), dict[str, None]()
    while len(made) < count:
        made[_sentence(draw)] = None
    return list(made)


def _sentence(draw: random.Random) -> str:
    def one_of(words: Sequence[str]) -> str:
        return words[draw.randrange(len(words))]

    def number() -> str:
        n = draw.randrange(1, 60)
        if n < 20:
            return (*ONES, *TEENS)[n - 1]
        return TENS[n // 10 - 2] + ("-" + ONES[n % 10 - 1] if n % 10 else "")

    hour, minutes = one_of((*ONES, *TEENS[:3])), one_of((*TEENS, *TENS, "o'clock"))
    kinds = (
        lambda: f"The {one_of(VEHICLES)} to {one_of(CITIES)} leaves at {hour} {minutes}.",
        lambda: f"The {one_of(COLORS)} {one_of(VEHICLES)} is late.",
        lambda: f"{one_of(DAYS)} will be {one_of(WEATHER)} in {one_of(CITIES)}.",
        lambda: f"It is {number()} degrees and {one_of(WEATHER)}.",
        lambda: f"Today is {one_of(DAYS)}, the {one_of(ORDINALS)} of {one_of(MONTHS)}.",
        lambda: f"The {one_of(PLACES)} is open on {one_of(DAYS)}.",
        lambda: f"Please take bus {number()} to the {one_of(PLACES)}.",
        lambda: f"{one_of(CITIES)} was {one_of(WEATHER)} in {one_of(MONTHS)}.",
        lambda: f"The {one_of(PLACES)} has {number()} {one_of(COLORS)} doors.",
    )  # fmt: skip
    return kinds[draw.randrange(len(kinds))]()
