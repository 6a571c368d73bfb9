"""What an experiment is: a configuration, points to measure, checks on the numbers, a figure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .catalog import Entry, Source
from .glossary import Quantity, quantities
from .references import Reference
from .tables import Tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STREAMS = 1000

Arrays = dict[str, Any]
"""What one point measures: arrays and numbers by name, measured and theoretical alike."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an experiment without random numbers can be told.

    The fields of a configuration are explained and bounded by the glossary of its paper. One that
    an experiment lacks it refuses: `seeds` without repetitions, `device` without torch.

    Raises:
        ValueError: a number that the glossary does not allow.
    """

    def __post_init__(self):
        paper = type(self).__module__.split(".")[1:2]
        known = quantities(paper[0] if paper else "")
        for field_ in fields(self):
            if field_.name in known:
                _check_field(field_.name, getattr(self, field_.name), known[field_.name])


def _check_field(name: str, value: Any, about: Quantity) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    if not numbers and not about.optional:
        raise ValueError(f"{name} needs at least one number")
    for number in numbers:
        if isinstance(number, int | float) and not about.allowed.holds(number):
            raise ValueError(f"{name} must be {about.allowed}, got {number}")


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """What an experiment that draws random numbers can be told.

    Attributes:
        base_seed: chooses the random numbers; each has a thousand streams of its own.
    """

    base_seed: int = 0

    @property
    def stream(self) -> int:
        """The first stream of random numbers."""
        return STREAMS * self.base_seed

    @property
    def streams(self) -> range:
        """The stream of every seed; of the first alone where there are no seeds."""
        return range(self.stream, self.stream + getattr(self, "seeds", 1))


@dataclass
class Result:
    """Everything that one run of an experiment measured.

    Attributes:
        experiment: its name.
        config: what it was run with.
        key: hash of name, configuration and revision; the cache goes by it.
        parts: the arrays of each point measured so far.
        total: how many points there are.
        seconds: wall time spent measuring.
        versions: of the packages that computed it.
        cached: whether it was read, not measured.
    """

    experiment: str
    config: Any
    key: str
    parts: list[Arrays]
    total: int
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    cached: bool = False

    @property
    def complete(self) -> bool:
        """Whether every point has been measured."""
        return len(self.parts) == self.total

    def __getitem__(self, name: str) -> np.ndarray:
        """The named array of every point, stacked along a new first axis."""
        return np.stack([np.asarray(part[name]) for part in self.parts])


@dataclass(frozen=True)
class Deviation:
    """Where a number is known to come out, although a claim puts it elsewhere.

    Attributes:
        value, tolerance: where it comes out, and how far from it over streams of random numbers.
        reason: why the claim does not hold.
    """

    value: float
    tolerance: float
    reason: str


@dataclass(frozen=True)
class Check:
    """One number against what it should be.

    Attributes:
        name: what is measured.
        measured: what came out.
        expected: the number or bound.
        tolerance: allowed distance; 0 with `relation` "<=" or ">=".
        source: where the expectation is from: "official code", "abstract", "recalled" (from the
            paper, not checked against its text), "derived", "chosen", "measured" (earlier run).
        relation: "~" (within the tolerance), "<=" or ">=".
        deviation: where the number comes out instead, of a claim known not to hold.
    """

    name: str
    measured: float
    expected: float
    tolerance: float
    source: str
    relation: str = "~"
    deviation: Deviation | None = None

    @property
    def holds(self) -> bool:
        """Whether the number is where the claim puts it; NaN is not."""
        if self.relation == "<=":
            return bool(self.measured <= self.expected + self.tolerance)
        if self.relation == ">=":
            return bool(self.measured >= self.expected - self.tolerance)
        return bool(abs(self.measured - self.expected) <= self.tolerance)

    @property
    def known(self) -> bool:
        """Whether the claim fails, and by as much as it is known to."""
        if self.deviation is None or self.holds:
            return False
        return abs(self.measured - self.deviation.value) <= self.deviation.tolerance

    @property
    def passed(self) -> bool:
        """Whether all is as expected: the claim holds, or fails as it is known to."""
        return self.holds if self.deviation is None else self.known

    def deviates(self, value: float, tolerance: float, reason: str) -> "Check":
        """The same check of a claim known not to hold: now it passes only if it fails so.

        Example:
            >>> close("gap", 0.2, 0.0, 0.1).deviates(0.2, 0.05, "short chains").passed
            True
            >>> close("gap", 0.0, 0.0, 0.1).deviates(0.2, 0.05, "short chains").passed
            False
        """
        return replace(self, deviation=Deviation(float(value), float(tolerance), reason))


def at_most(name: str, measured: float, bound: float, source: str = "derived") -> Check:
    """A check that a number does not exceed a bound.

    Example:
        >>> at_most("error", 0.1, 0.2).passed
        True
    """
    return Check(name, float(measured), float(bound), 0.0, source, "<=")


def at_least(name: str, measured: float, bound: float, source: str = "derived") -> Check:
    """A check that a number reaches a bound.

    Example:
        >>> at_least("fraction", 0.1, 0.2).passed
        False
    """
    return Check(name, float(measured), float(bound), 0.0, source, ">=")


def close(
    name: str, measured: float, expected: float, tolerance: float, source: str = "derived"
) -> Check:
    """A check that a number is within a tolerance of another.

    Example:
        >>> close("slope", 1.9, 2.0, 0.2).passed
        True
    """
    return Check(name, float(measured), float(expected), float(tolerance), source)


def near(
    name: str, measured: float, reference: Reference, error: float = 0.0, bias: float = 0.0
) -> Check:
    """A check that a number is within four standard errors, of both, of a reference.

    Args:
        name: what is measured.
        measured: what came out.
        reference: what is known.
        error: standard error of what came out.
        bias: allowed beside the errors, for a stated reason.

    Example:
        >>> near("risk", 0.243, Reference(0.2429, 0.001, "derived"), error=0.001).passed
        True
    """
    tolerance = 4 * float(np.hypot(error, reference.error)) + bias
    return close(name, measured, reference.value, tolerance, reference.source)


def single(config: Any) -> Sequence[Any]:
    """The points of an experiment that is measured in one go."""
    return (None,)


@dataclass(frozen=True)
class Experiment:
    """One experiment of a paper.

    Attributes:
        entry: its name, what it shows, what of the paper it belongs to, how long it takes.
        config: the full run.
        quick: a run of seconds with the same checks.
        measure: computes one point.
        checks: compares a complete result with what it should be.
        draw: the figure.
        tidy: what was measured as a table.
        more: further tables of what the figure shows, by name.
        points: the points in their order; each is measured, saved and resumed by itself.
        work: how much there is to do, in any unit, from which times are estimated.
        revision: raised when `measure` changes, so that results of older code are not reused.
    """

    entry: Entry
    config: Any
    quick: Any
    measure: Callable[[Any, Any], Arrays]
    checks: Callable[[Result], list[Check]]
    draw: Callable[[Result], "Figure"]
    tidy: Tidy
    more: Mapping[str, Tidy] = field(default_factory=dict)
    points: Callable[[Any], Sequence[Any]] = single
    work: Callable[[Any], float] = lambda config: 1.0
    revision: int = 1

    @property
    def name(self) -> str:
        """<paper>.<experiment>."""
        return self.entry.name

    @property
    def title(self) -> str:
        """What it shows."""
        return self.entry.title

    @property
    def paper(self) -> str:
        """The paper's short name."""
        return self.entry.paper

    def seconds(self, config: Any) -> float:
        """What a run takes on one core, from the time of the full run and the work.

        Example:
            >>> from attn_theory.papers import find
            >>> from dataclasses import replace
            >>> heads = find("icl_linear.heads")
            >>> heads.seconds(replace(heads.config, steps=4000)) > heads.seconds(heads.config)
            True
        """
        return self.entry.seconds * self.work(config) / self.work(self.config)

    def identity(self, config: Any) -> dict[str, Any]:
        """What a cached result must have been made from to be used again."""
        return {"experiment": self.name, "revision": self.revision, "config": asdict(config)}


@dataclass(frozen=True)
class Paper:
    """A paper and its experiments.

    Attributes:
        source: its name, title, authors and arXiv number.
        experiments: in the order of its page.
        notes: what of it is from the paper, what derived or chosen here, and what did not hold.
        formulas: the laws that are tested, each a name and its TeX.
    """

    source: Source
    experiments: tuple[Experiment, ...]
    notes: str
    formulas: tuple[tuple[str, str], ...] = ()
