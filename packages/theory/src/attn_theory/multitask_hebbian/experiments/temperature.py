"""F2: amplitudes against temperature."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...experiment import Arrays, Check, Config, Experiment, Result, close
from .. import theory
from .simulate import finite_solution, stored_overlaps

FLUCTUATES = "where an overlap is about to vanish it fluctuates widely"


@dataclass(frozen=True, kw_only=True)
class Temperature(Config):
    """Curves from the hierarchical state, Monte Carlo at some temperatures; seeds are replicas."""

    seeds: int = 16
    k: int = 3
    dilutions: tuple[float, ...] = (0.3, 0.5, 0.7)
    temperatures: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    n: int = 3000
    sweeps: int = 20
    averaged: int = 10


def measure(config: Temperature, dilution: float) -> Arrays:
    """Curve and simulation at one dilution."""
    site, start = theory.entries(config.k, dilution), theory.hierarchical(config.k, dilution)
    grid = np.linspace(0.01, 1.05 * (1 - dilution), 50)
    curve = theory.solve(site, 1 / grid, np.tile(start, (len(grid), 1)), iterations=4000)
    simulated, gaps = [], []
    for t in config.temperatures:
        overlaps, drawn = stored_overlaps(
            f"temperature {dilution} {t}", stream=config.stream,
            n=config.n, k=config.k, dilution=dilution, beta=1 / t,
            replicas=config.seeds, sweeps=config.sweeps, averaged=config.averaged,
        )  # fmt: skip
        simulated.append(overlaps)
        gaps.append(np.abs(overlaps - finite_solution(drawn, 1 / t, overlaps)).max(1))
    beta = 1 / np.array(config.temperatures)
    expected = theory.solve(site, beta, np.tile(start, (len(beta), 1)))
    return {
        "dilution": dilution,
        "grid": grid,
        "curve": curve,
        "simulated": np.array(simulated),
        "to_finite": np.array(gaps),
        "expected": expected,
        "critical": theory.critical_temperature(config.k, dilution),
    }


def checks(result: Result) -> list[Check]:
    """T_c = 1 - d, and Monte Carlo below it."""
    out, config = [], result.config
    for part in result.parts:
        d = float(part["dilution"])
        out.append(close(f"critical temperature, d={d}", part["critical"], 1 - d, 1e-3))
        for i, t in enumerate(config.temperatures):
            if t < 0.6 * (1 - d):
                # Equal overlaps fluctuate against each other; the energy does not.
                energy = -0.5 * np.square(part["simulated"][i]).sum(1).mean()
                expected = -0.5 * np.square(part["expected"][i]).sum()
                out.append(close(f"energy, Monte Carlo v infinite size, d={d}, T={t}", energy,
                                 expected, 0.01))  # fmt: skip
                out.append(Check(f"Monte Carlo v drawn patterns, median gap, d={d}, T={t}",
                                 float(np.median(part["to_finite"][i])), 0.03, 0.0, "derived", "<=",
                                 FLUCTUATES if t >= 0.2 else ""))  # fmt: skip
    return out


def draw(result: Result):
    """A panel per dilution."""
    figure, [axes] = plotting.panels(1, len(result.parts), width=3.5)
    for ax, part in zip(axes, result.parts, strict=True):
        for mu in range(result.config.k):
            plotting.line(ax, part["grid"], part["curve"][:, mu], index=mu, label=f"m_{mu + 1}")
            values = part["simulated"][..., mu]
            plotting.points(ax, result.config.temperatures, values.mean(1), values.std(1), index=mu)
        ax.axvline(part["critical"], color="black", ls=":", lw=1, label="T_c")
        plotting.labels(ax, "temperature T", "overlap m", f"d={float(part['dilution'])}")
    return figure


EXPERIMENT = Experiment(
    "multitask_hebbian.temperature",
    "F2: overlaps against temperature: the hierarchy merges into equal amplitudes and vanishes at "
    "T_c = 1 - d.",
    Temperature(),
    Temperature(dilutions=(0.3, 0.7), temperatures=(0.05,), n=1500, seeds=24, sweeps=10),
    measure,
    checks,
    draw,
    points=lambda config: config.dilutions,
    revision=2,
    budget=25,
)
