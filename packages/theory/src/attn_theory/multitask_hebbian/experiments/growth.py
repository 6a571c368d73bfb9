"""F8: patterns that grow as log N."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...experiment import Arrays, Check, Config, Experiment, Result, at_most, close
from .. import theory
from .simulate import finite_solution, stored_overlaps


@dataclass(frozen=True, kw_only=True)
class Growth(Config):
    """Network sizes with K = floor(log2 N) / 2 patterns; seeds are replicas."""

    seeds: int = 16
    sizes: tuple[int, ...] = (500, 1000, 2000, 4000, 8000)
    dilution: float = 0.4
    t: float = 0.05
    sweeps: int = 30
    averaged: int = 10


def measure(config: Growth, n: int) -> Arrays:
    """Overlaps and both theories at one size."""
    k = int(np.log2(n)) // 2
    overlaps, patterns = stored_overlaps(
        f"growth {n}", stream=config.stream,
        n=n, k=k, dilution=config.dilution, beta=1 / config.t,
        replicas=config.seeds, sweeps=config.sweeps, averaged=config.averaged,
    )  # fmt: skip
    start = theory.hierarchical(k, config.dilution)
    infinite = theory.solve(theory.entries(k, config.dilution), 1 / config.t, start,
                            iterations=2000)  # fmt: skip
    finite = finite_solution(patterns, 1 / config.t, overlaps)
    # Patterns after the first may come out in another order or sign.
    ordered = np.sort(np.abs(overlaps), 1)[:, ::-1]
    return {
        "n": n,
        "k": k,
        "to_finite": np.abs(overlaps - finite).max(1),
        "to_infinite": np.sqrt(np.square(ordered - infinite)[:, :2].mean()),
        "overlap": np.pad(ordered, ((0, 0), (0, 8 - k))),
        "infinite": np.pad(infinite, (0, 8 - k)),
    }


def checks(result: Result) -> list[Check]:
    """Every size follows its own patterns; the distance from the limit falls as N^-1/2."""
    out = []
    for part in result.parts:
        n, k = int(part["n"]), int(part["k"])
        out.append(at_most(f"median gap to the finite-size theory, N={n}, K={k}",
                           np.median(part["to_finite"]), 0.02))  # fmt: skip
    slope = np.polyfit(np.log(result["n"]), np.log(result["to_infinite"]), 1)[0]
    out.append(close("exponent of the distance from the limit", slope, -0.5, 0.2))
    return out


def draw(result: Result):
    """Overlaps against size, and the distance from the limit."""
    figure, [[left, right]] = plotting.panels(1, 2)
    n = result["n"]
    for mu in range(int(result["k"].max())):
        has = result["k"] > mu
        values = result["overlap"][has][..., mu]
        plotting.points(left, n[has], values.mean(1), values.std(1), index=mu, label=f"m_{mu + 1}")
        plotting.line(left, n[has], result["infinite"][has][:, mu], index=mu)
    left.set(xscale="log", ylim=(-0.05, 0.85))  # leaves room for the legend
    title = f"d={result.config.dilution}, K = floor(log2 N)/2"
    plotting.labels(left, "spins N", "overlap", title, legend=False)
    left.legend(ncols=3, loc="upper right")
    plotting.points(right, n, result["to_infinite"], label="from the infinite network")
    plotting.points(
        right,
        n,
        np.median(result["to_finite"], 1),
        index=1,
        label="from the drawn patterns (median)",
    )
    guide = result["to_infinite"][0] * np.sqrt(n[0] / n)
    plotting.line(right, n, guide, index=6, label="N^(-1/2)", style="--")
    right.set(xscale="log", yscale="log")
    for ax in (left, right):
        plotting.ticks(ax, n)
    plotting.labels(right, "spins N", "distance of the first two overlaps")
    return figure


EXPERIMENT = Experiment(
    "multitask_hebbian.growth",
    "F8: with K growing as log N all patterns are still retrieved together; deviations are those "
    "of the drawn patterns and fall as N^(-1/2).",
    Growth(),
    Growth(sizes=(500, 1000, 2000), seeds=24),
    measure,
    checks,
    draw,
    points=lambda config: config.sizes,
    budget=30,
)
