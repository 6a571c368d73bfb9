"""F2: amplitudes against temperature."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Experiment, Result, at_most, close
from ...tables import Tidy
from .. import theory
from .simulate import Chains, draw_sorted, squares_against_limit, still_drifting, stored


@dataclass(frozen=True, kw_only=True)
class Temperature(Chains):
    """Curves from the hierarchical state, Monte Carlo at some temperatures."""

    k: int = 3
    dilutions: tuple[float, ...] = (0.3, 0.5, 0.7)
    temperatures: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    n: int = 3000


def measure(config: Temperature, point: tuple[float, float]) -> Arrays:
    """Overlaps at one dilution and temperature, and both theories."""
    d, t = point
    run = stored(config, f"temperature {d} {t}", n=config.n, k=config.k, dilution=d, temperature=t)
    infinite = theory.solve(theory.entries(config.k, d), 1 / t, theory.hierarchical(config.k, d))
    return {"dilution": d, "temperature": t, "infinite": infinite} | run.arrays()


def checks(result: Result) -> list[Check]:
    """T_c = 1 - d, and Monte Carlo below it."""
    config = result.config
    out = [still_drifting(result["stationary"])]
    for d in config.dilutions:
        critical = theory.critical_temperature(config.k, d)
        out.append(close(f"critical temperature, d={d}", critical, 1 - d, 1e-3))
    for part in result.parts:
        d, t, overlap = float(part["dilution"]), float(part["temperature"]), part["overlap"]
        if t < 0.6 * (1 - d):
            tag = f"d={d}, T={t}"
            name = f"Monte Carlo v infinite size, {tag}"
            out.append(squares_against_limit(name, overlap, part["infinite"], config.n))
            gap = np.median(np.abs(overlap - part["finite"]).max(1))
            out.append(at_most(f"Monte Carlo v drawn patterns, median gap, {tag}", gap, 0.03))
    return out


def draw(result: Result):
    """A panel per dilution."""
    config = result.config
    figure, [axes] = plotting.panels(1, len(config.dilutions), width=3.5)
    for ax, d in zip(axes, config.dilutions, strict=True):
        parts = [part for part in result.parts if float(part["dilution"]) == d]
        grid = np.linspace(0.01, 1.05 * (1 - d), 50)
        start = np.tile(theory.hierarchical(config.k, d), (len(grid), 1))
        curve = theory.solve(theory.entries(config.k, d), 1 / grid, start, iterations=4000)
        for mu in range(config.k):
            plotting.line(ax, grid, curve[:, mu], index=mu, label=f"$m_{mu + 1}$")
        draw_sorted(ax, config.temperatures, parts, config.k)
        critical = theory.critical_temperature(config.k, d)
        ax.axvline(critical, color="black", ls=":", lw=1, label="$T_c$")
        plotting.labels(ax, "temperature $T$", "overlap $m$ (markers: sorted $|m|$)", f"$d={d}$",
                        legend=ax is axes[-1])  # fmt: skip
    return figure


EXPERIMENT = Experiment(
    entry("multitask_hebbian.temperature"),
    Temperature(),
    Temperature(dilutions=(0.3, 0.7), temperatures=(0.05,), n=1500, seeds=24),
    measure,
    checks,
    draw,
    Tidy(
        {
            "dilution": "",
            "temperature": "",
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
    work=lambda c: c.seeds * c.n * c.k * len(c.dilutions) * len(c.temperatures),
    points=lambda config: [(d, t) for d in config.dilutions for t in config.temperatures],
    revision=4,
)
