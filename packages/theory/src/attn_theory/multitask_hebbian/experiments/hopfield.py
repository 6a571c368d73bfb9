"""F9: without blanks only one pattern is retrieved."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...experiment import Arrays, Check, Config, Experiment, Result, at_least, at_most
from .simulate import stored_overlaps


@dataclass(frozen=True, kw_only=True)
class Hopfield(Config):
    """Dilutions, the first of them none; seeds are replicas."""

    seeds: int = 24
    n: int = 2000
    k: int = 3
    dilutions: tuple[float, ...] = (0.0, 0.3, 0.5)
    t: float = 0.05
    sweeps: int = 8
    averaged: int = 4


def measure(config: Hopfield, dilution: float) -> Arrays:
    """Sizes of the overlaps, largest first."""
    overlaps, _ = stored_overlaps(
        f"hopfield {dilution}", stream=config.stream,
        n=config.n, k=config.k, dilution=dilution, beta=1 / config.t,
        replicas=config.seeds, sweeps=config.sweeps, averaged=config.averaged,
    )  # fmt: skip
    return {"dilution": dilution, "overlap": np.sort(np.abs(overlaps), 1)[:, ::-1]}


def checks(result: Result) -> list[Check]:
    """One large overlap at d = 0, several above."""
    out = []
    for part in result.parts:
        d, mean = float(part["dilution"]), part["overlap"].mean(0)
        if d == 0:
            out.append(at_least("first overlap, d=0", mean[0], 0.99))
            out.append(at_most("second overlap, d=0", mean[1], 0.05))
        else:
            out.append(at_least(f"second overlap, d={d}", mean[1], 0.8 * (1 - d) * d))
    return out


def draw(result: Result):
    """Overlaps by rank."""
    figure, [[ax]] = plotting.panels(width=4.6)
    rank = np.arange(1, result.config.k + 1)
    for i, part in enumerate(result.parts):
        values, d = part["overlap"], float(part["dilution"])
        label = f"d={d}" if d else "d=0 (Hopfield)"
        plotting.points(ax, rank, values.mean(0), values.std(0), index=i, label=label)
        plotting.line(ax, rank, (1 - d) * d ** (rank - 1.0), index=i)
    ax.set_xticks(rank)
    plotting.labels(ax, "rank of the pattern", "|overlap| (lines: (1-d) d^(k-1))")
    return figure


EXPERIMENT = Experiment(
    "multitask_hebbian.hopfield",
    "F9: a standard Hopfield network (d = 0) retrieves one pattern; with blanks the others follow.",
    Hopfield(),
    Hopfield(n=800),
    measure,
    checks,
    draw,
    points=lambda config: config.dilutions,
    budget=5,
)
