"""Monte Carlo against the self-consistency of the very patterns that were drawn."""

from dataclasses import dataclass

import numpy as np

from ... import montecarlo, plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Experiment, Result, close, near
from ...references import known
from ...tables import Tidy
from .. import theory
from ..references import REFERENCES
from .simulate import Chains, still_drifting, stored

# Dilution and temperature.
POINTS = ((0.2, 0.05), (0.5, 0.05), (0.8, 0.05), (0.3, 0.5))


@dataclass(frozen=True, kw_only=True)
class Finite(Chains):
    """Two patterns."""

    seeds: int = 32
    n: int = 3000


def measure(config: Finite, point: tuple[float, float]) -> Arrays:
    """Overlaps, finite-size solution and infinite-size solution."""
    d, t = point
    run = stored(config, f"finite {d} {t}", n=config.n, k=2, dilution=d, temperature=t)
    return {
        "dilution": d,
        "temperature": t,
        "infinite": theory.solve(theory.entries(2, d), 1 / t, theory.hierarchical(2, d)),
    } | run.arrays()


def checks(result: Result) -> list[Check]:
    """Means over replicas: tight against the drawn patterns, loose against the limit."""
    out = [still_drifting(result["stationary"])]
    references = known(REFERENCES, "finite", result.config)
    for part in result.parts:
        d, t = float(part["dilution"]), float(part["temperature"])
        tag = f"d={d}, T={t}"
        difference = part["overlap"] - part["finite"]
        se = montecarlo.standard_error(difference)
        # The sheet's own distance from the finite-size theory: 0.0005 cold, 0.005 near T_c.
        base = 0.0005 if t < 0.1 else 0.005
        for mu in range(2):
            out.append(close(f"m_{mu + 1} - finite-size theory, {tag}", difference[:, mu].mean(), 0,
                             base + 4 * se[mu]))  # fmt: skip
        for mu in range(2):
            reference = references[f"m_{mu + 1}"].get((d, t))
            if reference is not None:
                name = f"m_{mu + 1}, infinite-size theory, {tag}"
                out.append(near(name, part["infinite"][mu], reference))
        gap = np.abs(part["overlap"].mean(0) - part["infinite"]).max()
        if t < 0.1:
            slack = 4 * float(montecarlo.standard_error(part["overlap"]).max())
            out.append(close(f"Monte Carlo v infinite size, {tag}: largest gap", gap, 0,
                             slack + result.config.n**-0.5))  # fmt: skip
    return out


def draw(result: Result):
    """Simulated overlaps of every replica against both theories."""
    figure, [axes] = plotting.panels(1, len(result.parts), width=3.1, height=3)
    for ax, part in zip(axes, result.parts, strict=True):
        for mu in range(2):
            plotting.points(ax, part["finite"][:, mu], part["overlap"][:, mu], index=mu,
                            label=f"$m_{mu + 1}$")  # fmt: skip
            ax.axhline(part["infinite"][mu], color=plotting.COLORS[mu], ls=":", lw=1)
        low, high = part["finite"].min() - 0.02, part["finite"].max() + 0.02
        plotting.line(ax, [low, high], [low, high], index=6)
        title = f"d={float(part['dilution'])}, T={float(part['temperature'])}"
        plotting.labels(ax, "self-consistency of the replica", "Monte Carlo", title)
    return figure


EXPERIMENT = Experiment(
    entry("multitask_hebbian.finite"),
    Finite(),
    Finite(n=1500, seeds=32),
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
    work=lambda c: c.seeds * c.n,
    points=lambda config: POINTS,
    revision=2,
)
