"""F1: amplitudes against dilution, from hierarchical to parallel."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...experiment import Arrays, Check, Config, Experiment, Result, close, near
from ...references import known
from .. import theory
from ..references import REFERENCES
from .simulate import finite_solution, stored_overlaps

NEAR = "close to d_c spins drift between solutions of nearly equal free energy"


@dataclass(frozen=True, kw_only=True)
class Dilution(Config):
    """Curves at temperature t, Monte Carlo at some of the dilutions; seeds are replicas."""

    seeds: int = 16
    patterns: tuple[int, ...] = (3, 5)
    t: float = 0.05
    curve: int = 60
    dilutions: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    n: int = 3000
    sweeps: int = 20
    averaged: int = 10


def measure(config: Dilution, k: int) -> Arrays:
    """Self-consistency on a fine grid and simulated overlaps."""
    grid = np.linspace(0.02, 0.94, config.curve)
    start = [theory.hierarchical(k, d) for d in grid]
    curve = [
        theory.solve(theory.entries(k, d), 1 / config.t, s, iterations=3000)
        for d, s in zip(grid, start, strict=True)
    ]
    simulated, expected, gaps = [], [], []
    for d in config.dilutions:
        overlaps, drawn = stored_overlaps(
            f"dilution {k} {d}", stream=config.stream,
            n=config.n, k=k, dilution=d, beta=1 / config.t,
            replicas=config.seeds, sweeps=config.sweeps, averaged=config.averaged,
        )  # fmt: skip
        simulated.append(overlaps)
        gaps.append(np.abs(overlaps - finite_solution(drawn, 1 / config.t, overlaps)).max(1))
        site = theory.entries(k, d)
        expected.append(theory.solve(site, 1 / config.t, theory.hierarchical(k, d)))
    return {
        "k": k,
        "grid": grid,
        "curve": np.pad(np.array(curve), ((0, 0), (0, 8 - k))),
        "simulated": np.pad(np.array(simulated), ((0, 0), (0, 0), (0, 8 - k))),
        "to_finite": np.array(gaps),
        "expected": np.pad(np.array(expected), ((0, 0), (0, 8 - k))),
    }


def checks(result: Result) -> list[Check]:
    """Fixed points at T = 0, critical dilutions, and Monte Carlo away from the transition."""
    out = []
    references = known(REFERENCES, "dilution", result.config)
    for d, mixture in references["mixture"].items():
        site = theory.entries(3, d)
        m = theory.solve(site, np.inf, theory.hierarchical(3, d))
        for mu in range(3):
            reference = references[f"m_{mu + 1}"][d]
            out.append(near(f"T=0 fixed point, d={d}: m_{mu + 1}", m[mu], reference))
        out.append(near(f"symmetric mixture, d={d}", theory.symmetric_mixture(3, d), mixture))
    site = theory.entries(3, 0.7)
    reached = theory.solve(site, np.inf, theory.hierarchical(3, 0.7))
    out.append(close("energy of the fixed point, d=.7", -0.5 * (reached**2).sum(), -0.0789, 1e-4))
    out.append(close("energy of the mixture, d=.7", -1.5 * theory.symmetric_mixture(3, 0.7) ** 2,
                     -0.0749, 1e-4))  # fmt: skip
    for k, reference in references["critical dilution"].items():
        out.append(near(f"critical dilution, K={k}", theory.critical_dilution(k), reference))
    config = result.config
    for part in result.parts:
        k = int(part["k"])
        for i, d in enumerate(config.dilutions):
            tag = f"K={k}, d={d}"
            # Later patterns may come out in another order or sign: sizes are compared in order.
            ordered = np.sort(np.abs(part["simulated"][i, :, :k]), 1)[:, ::-1].mean(0)
            gap = np.abs(ordered - np.sort(part["expected"][i, :k])[::-1])[:2].max()
            out.append(close(f"Monte Carlo v infinite size, first two, {tag}", gap, 0,
                             0.03 * (3000 / config.n) ** 0.5))  # fmt: skip
            critical = abs(d - theory.critical_dilution(k)) < 0.1
            out.append(Check(f"Monte Carlo v drawn patterns, median gap, {tag}",
                             float(np.median(part["to_finite"][i])), 0.01, 0.0, "derived", "<=",
                             NEAR if critical else ""))  # fmt: skip
    return out


def draw(result: Result):
    """A panel per number of patterns."""
    figure, [axes] = plotting.panels(1, len(result.parts))
    for ax, part in zip(axes, result.parts, strict=True):
        k = int(part["k"])
        for mu in range(k):
            plotting.line(ax, part["grid"], part["curve"][:, mu], index=mu, label=f"m_{mu + 1}")
            values = part["simulated"][..., mu]
            plotting.points(ax, result.config.dilutions, values.mean(1), values.std(1), index=mu)
        ax.axvline(theory.critical_dilution(k), color="black", ls=":", lw=1, label="d_c at T=0")
        plotting.labels(ax, "dilution d", "overlap m", f"K={k}, T={result.config.t}")
    return figure


EXPERIMENT = Experiment(
    "multitask_hebbian.dilution",
    "F1: overlaps against dilution: hierarchical (1-d) d^(k-1) below d_c, then towards equal "
    "amplitudes; self-consistency and Monte Carlo.",
    Dilution(),
    Dilution(patterns=(3,), dilutions=(0.3, 0.5, 0.8), curve=12, n=1500, seeds=24),
    measure,
    checks,
    draw,
    points=lambda config: config.patterns,
    revision=2,
    budget=25,
)
