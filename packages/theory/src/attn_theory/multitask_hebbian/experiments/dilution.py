"""F1: amplitudes against dilution, from hierarchical to parallel."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Experiment, Result, at_most, close, near
from ...references import known
from ...tables import Tidy
from .. import theory
from ..references import REFERENCES
from .simulate import Chains, draw_sorted, squares_against_limit, still_drifting, stored


@dataclass(frozen=True, kw_only=True)
class Dilution(Chains):
    """Curves at temperature t, Monte Carlo at some of the dilutions."""

    patterns: tuple[int, ...] = (3, 5)
    t: float = 0.05
    curve: int = 60
    dilutions: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    n: int = 3000


def measure(config: Dilution, point: tuple[int, float]) -> Arrays:
    """Overlaps at one dilution, and both theories."""
    k, d = point
    run = stored(config, f"dilution {k} {d}", n=config.n, k=k, dilution=d, temperature=config.t)
    return {"k": k, "dilution": d, "infinite": limit(k, d, config.t)} | run.arrays()


def limit(k: int, d: float, t: float) -> np.ndarray:
    """Overlaps of the infinite network, from the hierarchical state."""
    start = theory.hierarchical(k, d)
    return theory.solve(theory.entries(k, d), 1 / t, start, iterations=3000, tolerance=1e-9)


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
    out.append(still_drifting(result["stationary"]))
    for part in result.parts:
        k, d, overlap = int(part["k"]), float(part["dilution"]), part["overlap"]
        tag = f"K={k}, d={d}"
        name = f"Monte Carlo v infinite size, {tag}"
        out.append(squares_against_limit(name, overlap, part["infinite"], result.config.n))
        gap = np.median(np.abs(overlap - part["finite"]).max(1))
        out.append(at_most(f"Monte Carlo v drawn patterns, median gap, {tag}", gap, 0.01))
    return out


def draw(result: Result):
    """A panel per number of patterns."""
    config = result.config
    figure, [axes] = plotting.panels(1, len(config.patterns))
    grid = np.linspace(0.02, 0.94, config.curve)
    for ax, k in zip(axes, config.patterns, strict=True):
        parts = [part for part in result.parts if int(part["k"]) == k]
        curve = np.array([limit(k, d, config.t) for d in grid])
        for mu in range(k):
            plotting.line(ax, grid, curve[:, mu], index=mu, label=f"$m_{mu + 1}$")
        draw_sorted(ax, config.dilutions, parts, k)
        ax.axvline(theory.critical_dilution(k), color="black", ls=":", lw=1, label="$d_c$ at $T=0$")
        plotting.labels(
            ax, "dilution $d$", "overlap $m$ (markers: sorted $|m|$)", f"$K={k}$, $T={config.t}$"
        )
    return figure


EXPERIMENT = Experiment(
    entry("multitask_hebbian.dilution"),
    Dilution(),
    Dilution(patterns=(3,), dilutions=(0.3, 0.5, 0.8), curve=12, n=1500, seeds=24),
    measure,
    checks,
    draw,
    Tidy(
        {
            "k": "",
            "dilution": "",
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
    work=lambda c: c.seeds * c.n * sum(c.patterns) * len(c.dilutions),
    points=lambda config: [(k, d) for k in config.patterns for d in config.dilutions],
    revision=4,
)
