"""F8: patterns that grow as log N."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Experiment, Result, at_most, close
from ...tables import Tidy
from .. import theory
from .simulate import Chains, still_drifting, stored


@dataclass(frozen=True, kw_only=True)
class Growth(Chains):
    """Network sizes with K = floor(log2 N) / 2 patterns."""

    sizes: tuple[int, ...] = (500, 1000, 2000, 4000, 8000)
    dilution: float = 0.4
    t: float = 0.05


def measure(config: Growth, n: int) -> Arrays:
    """Overlaps and both theories at one size."""
    k = int(np.log2(n)) // 2
    run = stored(config, f"growth {n}", n=n, k=k, dilution=config.dilution, temperature=config.t)
    start = theory.hierarchical(k, config.dilution)
    infinite = theory.solve(theory.entries(k, config.dilution), 1 / config.t, start,
                            iterations=2000)  # fmt: skip
    return {"n": n, "k": k, "infinite": infinite} | run.arrays()


def to_finite(result: Result) -> np.ndarray:
    """Median over replicas of the largest distance from the drawn patterns' solution."""
    gaps = [np.abs(part["overlap"] - part["finite"]).max(1) for part in result.parts]
    return np.array([np.median(gap) for gap in gaps])


def to_infinite(result: Result) -> np.ndarray:
    """Median distance of the first overlap from the infinite network's.

    The others may change places, and in a small network even the first may leave: not the median.
    """
    gaps = [np.abs(part["overlap"] - part["infinite"])[:, 0] for part in result.parts]
    return np.array([np.median(gap) for gap in gaps])


def checks(result: Result) -> list[Check]:
    """Every size follows its own patterns; the distance from the limit falls as N^-1/2."""
    out = [still_drifting(result["stationary"])]
    for part, gap in zip(result.parts, to_finite(result), strict=True):
        n, k = int(part["n"]), int(part["k"])
        out.append(at_most(f"median gap to the finite-size theory, N={n}, K={k}", gap, 0.02))
    slope = np.polyfit(np.log(result["n"]), np.log(to_infinite(result)), 1)[0]
    # The median of R Gaussian distances is known to 1.17 parts in sqrt(R).
    spread = 1.17 / (result.config.seeds**0.5 * np.log(result["n"]).std())
    spread /= len(result.parts) ** 0.5
    out.append(close("exponent of the distance from the limit", slope, -0.5, 4 * spread))
    return out


def draw(result: Result):
    """Overlaps against size, and the distance from the limit."""
    figure, [[left, right]] = plotting.panels(1, 2)
    n, most = result["n"], int(result["k"].max())
    for mu in range(most):
        has = [part for part in result.parts if int(part["k"]) > mu]
        size = [int(part["n"]) for part in has]
        values = np.array([part["overlap"][:, mu] for part in has])
        plotting.means(left, size, values, index=mu, label=f"$m_{mu + 1}$")
        plotting.line(left, size, [part["infinite"][mu] for part in has], index=mu)
    left.set(xscale="log", ylim=(-0.16, 0.85))  # leaves room for the legend
    title = rf"$d={result.config.dilution}$, $K = \lfloor\log_2 N\rfloor / 2$"
    plotting.labels(left, "spins $N$", "overlap $m$", title, legend=False)
    left.legend(ncols=3, loc="upper right")
    distance = to_infinite(result)
    plotting.points(right, n, distance, label="from the infinite network")
    plotting.points(right, n, to_finite(result), index=1, label="from the drawn patterns (median)")
    guide = distance[0] * np.sqrt(n[0] / n)
    plotting.line(right, n, guide, index=6, label="$N^{-1/2}$", style="--")
    right.set(xscale="log", yscale="log", ylim=(None, 5 * distance.max()))
    for ax in (left, right):
        plotting.ticks(ax, n)
    plotting.labels(right, "spins $N$", "distance of the first overlap", legend=False)
    right.legend(loc="upper right")
    return figure


EXPERIMENT = Experiment(
    entry("multitask_hebbian.growth"),
    Growth(),
    Growth(sizes=(500, 1000, 4000), seeds=32),
    measure,
    checks,
    draw,
    Tidy(
        {
            "n": "",
            "k": "",
            "overlap": "seed pattern",
            "finite": "seed pattern",
            "infinite": "pattern",
            "energy": "seed",
            "drift": "",
            "drift_error": "",
            "sweeps": "",
            "stationary": "",
        }
    ),
    work=lambda c: c.seeds * sum(c.sizes),
    points=lambda config: config.sizes,
    revision=2,
)
