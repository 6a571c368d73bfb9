"""Monte Carlo runs that several experiments share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from ... import montecarlo, plotting
from ...experiment import Arrays, Check, Config, at_most, close
from ...seeds import numpy_generator
from ..model import Network, draw_patterns, hierarchical_spins, magnetisations
from ..relaxation import Relaxed, check_relaxation, relax


@dataclass(frozen=True, kw_only=True)
class Chains(Config):
    """Glauber chains; seeds are replicas, each with patterns of its own.

    Attributes:
        sweeps: at most; a chain ends once it is stationary.
    """

    seeds: int = 16
    sweeps: int = 1600

    def __post_init__(self):
        super().__post_init__()
        check_relaxation(self.seeds, self.sweeps)


class Stored(NamedTuple):
    """Replicas relaxed from the hierarchical state of their own patterns."""

    overlap: Float[np.ndarray, "replicas patterns"]
    finite: Float[np.ndarray, "replicas patterns"]
    relaxed: Relaxed

    def arrays(self) -> Arrays:
        """Overlaps, the self-consistency of the drawn patterns beside them, and the diagnostic."""
        return {"overlap": self.overlap, "finite": self.finite} | diagnostic(self.relaxed)


def stored(
    config: Chains, purpose: str, *, n: int, k: int, dilution: float, temperature: float
) -> Stored:
    """Relaxes networks that store k patterns.

    Args:
        config: replicas, sweeps and random numbers.
        purpose: names the random numbers.
        n, k, dilution, temperature: the network.
    """
    rng = numpy_generator(config.stream, purpose)
    patterns = draw_patterns(rng, n, k, dilution, config.seeds)
    start, beta = hierarchical_spins(rng, patterns), 1 / temperature
    relaxed = relax(rng, Network.storing(patterns), start, beta, sweeps=config.sweeps)
    overlap = magnetisations(patterns, relaxed.mean)
    return Stored(overlap, finite_solution(patterns, beta, overlap), relaxed)


def diagnostic(relaxed: Relaxed) -> Arrays:
    """What says whether a chain is stationary."""
    return {
        "energy": relaxed.energy,
        "drift": relaxed.drift,
        "drift_error": relaxed.error,
        "sweeps": relaxed.sweeps,
        "stationary": relaxed.stationary,
    }


def still_drifting(stationary: np.ndarray) -> Check:
    """A check that the chains became stationary, but for one in twenty.

    So many stationary ones fail a test of two standard errors.
    """
    stationary = np.asarray(stationary)
    allowed = math.ceil(stationary.size / 20)
    return at_most(
        f"chains of {stationary.size} whose energy still drifts",
        float((~stationary).sum()),
        allowed,
    )


def squares_against_limit(
    name: str, overlap: Float[np.ndarray, "replicas patterns"], limit: np.ndarray, n: int
) -> Check:
    """A check of the sum of m^2 against the infinite network's.

    Patterns may change places, and sorting them would make a gap out of a tie: the sum knows
    neither order nor sign. Of several orders that are equal in the limit, spins take the one that
    suits the drawn patterns best, which lifts the sum by up to N^-1/2 (0.8 of it for K = 5).

    Args:
        name: of the check.
        overlap: of every replica.
        limit: overlaps of the infinite network.
        n: spins.
    """
    total = np.square(overlap).sum(1)
    slack = 4 * float(montecarlo.standard_error(total)) + n**-0.5
    return close(f"sum of m^2, {name}", total.mean(), float(np.square(limit).sum()), slack)


def draw_sorted(ax: Axes, x, parts: Sequence[Arrays], k: int) -> None:
    """Overlaps of Monte Carlo, and crosses for the self-consistency of its drawn patterns.

    Both sorted within each replica, as patterns change places: ties come out apart by what the
    patterns of N spins differ, which is of the order of N^-1/2.
    """
    for name in ("overlap", "finite"):
        ordered = [np.sort(np.abs(part[name]), 1)[:, ::-1] for part in parts]
        for mu in range(k):
            values = np.array([rows[:, mu] for rows in ordered])
            if name == "overlap":
                plotting.means(ax, x, values, index=mu)
            else:
                label = "drawn patterns" if mu == 0 else None
                ax.plot(x, values.mean(1), "x", ms=4, lw=0.8, color="black", label=label)


def finite_solution(
    patterns: Float[np.ndarray, "spins replicas patterns"],
    beta: float,
    start: Float[np.ndarray, "replicas patterns"],
    iterations: int = 400,
) -> Float[np.ndarray, "replicas patterns"]:
    """Self-consistency with the sample mean over the drawn sites in place of the expectation."""
    m, n = start.copy(), len(patterns)
    by_replica = np.ascontiguousarray(patterns.transpose(1, 0, 2))
    for _ in range(iterations):
        answer = np.tanh(beta * (by_replica @ m[..., None])[..., 0])
        new = 0.5 * m + 0.5 * (answer[:, None] @ by_replica)[:, 0] / n
        change, m = np.abs(new - m).max(), new
        if change < 1e-8:
            break
    return m
