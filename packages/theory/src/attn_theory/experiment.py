"""What an experiment is: a configuration, points to measure, checks on the numbers, a figure."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .references import Reference

STREAMS = 1000

Arrays = dict[str, Any]
"""What one point measures: arrays and numbers by name, measured and theoretical alike."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every experiment can be told.

    Attributes:
        seeds: how many seeds, numbered from `stream`.
        device: where torch computes.
        base_seed: chooses the random numbers; each has a thousand streams of its own.
    """

    seeds: int = 1
    device: str = "cpu"
    base_seed: int = 0

    def __post_init__(self):
        if not 1 <= self.seeds <= STREAMS:
            raise ValueError(f"seeds must be at least 1 and at most {STREAMS}, got {self.seeds}")
        if self.base_seed < 0:
            raise ValueError(f"base_seed must be at least 0, got {self.base_seed}")

    @property
    def stream(self) -> int:
        """The first stream of random numbers."""
        return STREAMS * self.base_seed

    @property
    def streams(self) -> range:
        """The stream of every seed."""
        return range(self.stream, self.stream + self.seeds)


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
    """

    experiment: str
    config: Any
    key: str
    parts: list[Arrays]
    total: int
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

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
        name: "<paper>.<experiment>".
        title: what it shows, one sentence.
        config: the full run.
        quick: a run of seconds with the same checks.
        measure: computes one point.
        checks: compares a complete result with what it should be.
        draw: the figure.
        points: the points in their order; each is measured, saved and resumed by itself.
        budget: seconds that the full run takes on one core.
        revision: raised when `measure` changes, so that results of older code are not reused.
    """

    name: str
    title: str
    config: Any
    quick: Any
    measure: Callable[[Any, Any], Arrays]
    checks: Callable[[Result], list[Check]]
    draw: Callable[[Result], Figure]
    points: Callable[[Any], Sequence[Any]] = single
    budget: float = 10.0
    revision: int = 1

    @property
    def paper(self) -> str:
        """The paper's short name."""
        return self.name.partition(".")[0]

    def identity(self, config: Any) -> dict[str, Any]:
        """What a cached result must have been made from to be used again."""
        return {"experiment": self.name, "revision": self.revision, "config": asdict(config)}


@dataclass(frozen=True)
class Paper:
    """A paper and its experiments.

    Attributes:
        name: the short name used on the command line.
        title, arxiv: of the paper.
        experiments: in the order of the gallery page.
        notes: what of it is from the paper, what derived or chosen here, and what did not hold.
    """

    name: str
    title: str
    arxiv: str
    experiments: tuple[Experiment, ...]
    notes: str
