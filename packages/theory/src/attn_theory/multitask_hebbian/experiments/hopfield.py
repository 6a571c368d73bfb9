"""F9: without blanks only one pattern is retrieved."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Experiment, Result, at_least, at_most
from ...tables import Tidy
from .simulate import Chains, still_drifting, stored


@dataclass(frozen=True, kw_only=True)
class Hopfield(Chains):
    """Dilutions, the first of them none."""

    seeds: int = 24
    n: int = 2000
    k: int = 3
    dilutions: tuple[float, ...] = (0.0, 0.3, 0.5)
    t: float = 0.05


def measure(config: Hopfield, dilution: float) -> Arrays:
    """Overlaps by pattern."""
    run = stored(config, f"hopfield {dilution}", n=config.n, k=config.k, dilution=dilution,
                 temperature=config.t)  # fmt: skip
    return {"dilution": dilution} | run.arrays()


def checks(result: Result) -> list[Check]:
    """One large overlap at d = 0, several above."""
    out = [still_drifting(result["stationary"])]
    for part in result.parts:
        d, mean = float(part["dilution"]), np.abs(part["overlap"]).mean(0)
        if d == 0:
            out.append(at_least("first overlap, d=0", mean[0], 0.99))
            out.append(at_most("second overlap, d=0", mean[1], 0.05))
        else:
            out.append(at_least(f"second overlap, d={d}", mean[1], 0.8 * (1 - d) * d))
    return out


def draw(result: Result):
    """Overlaps of the patterns."""
    figure, [[ax]] = plotting.panels(width=4.6)
    number = np.arange(1, result.config.k + 1)
    for i, part in enumerate(result.parts):
        values, d = np.abs(part["overlap"]), float(part["dilution"])
        label = f"d={d}" if d else "d=0 (Hopfield)"
        plotting.means(ax, number, values.T, index=i, label=label)
        plotting.line(ax, number, (1 - d) * d ** (number - 1.0), index=i)
    ax.set_xticks(number)
    plotting.labels(ax, "pattern $k$", "overlap $|m|$ (lines: $(1-d) d^{k-1}$)")
    return figure


EXPERIMENT = Experiment(
    entry("multitask_hebbian.hopfield"),
    Hopfield(),
    Hopfield(n=800),
    measure,
    checks,
    draw,
    Tidy(
        {
            "dilution": "",
            "overlap": "seed pattern",
            "finite": "seed pattern",
            "energy": "seed",
            "drift": "",
            "drift_error": "",
            "sweeps": "",
            "stationary": "",
        }
    ),
    work=lambda c: c.seeds * c.n * c.k * len(c.dilutions),
    points=lambda config: config.dilutions,
    revision=2,
)
