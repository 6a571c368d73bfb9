"""F3: the phase diagram in dilution and temperature."""

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import ListedColormap

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Experiment, Result, Settings, close
from ...tables import Tidy
from .. import theory

NAMES = ("paramagnet", "parallel", "hierarchical", "single")


@dataclass(frozen=True, kw_only=True)
class Phases(Settings):
    """Size of the grid."""

    k: int = 3
    size: int = 60
    iterations: int = 2500


def measure(config: Phases, point: None) -> Arrays:
    """Solutions from the hierarchical state, sorted, and their class."""
    d = np.linspace(0.005, 0.98, config.size)
    t = np.linspace(0.01, 1.05, config.size)
    amplitudes = []
    for dilution in d:
        start = np.tile(theory.hierarchical(config.k, dilution), (len(t), 1))
        site = theory.entries(config.k, dilution)
        m = theory.solve(site, 1 / t, start, iterations=config.iterations, tolerance=1e-9)
        amplitudes.append(np.sort(np.abs(m), -1)[..., ::-1])
    m = np.array(amplitudes)
    phase = np.full(m.shape[:2], 2)
    phase[m[..., 0] - m[..., 1] < 1e-3] = 1
    phase[m[..., 1] < 1e-2] = 3
    phase[m[..., 0] < 2e-2] = 0
    return {"d": d, "t": t, "m": m, "phase": phase}


def checks(result: Result) -> list[Check]:
    """The border of the paramagnet, and the corners."""
    part = result.parts[0]
    d, t, phase = part["d"], part["t"], part["phase"]
    gaps = []
    for i, dilution in enumerate(d):
        if dilution < 0.9:
            alive = t[phase[i] != 0]
            gaps.append(alive.max() + (t[1] - t[0]) / 2 - (1 - dilution))
    corner = phase[np.abs(d - 0.4).argmin(), 0]
    parallel = phase[np.abs(d - 0.85).argmin(), np.abs(t - 0.08).argmin()]
    step = t[1] - t[0]
    return [
        close(
            "border of the paramagnet v T = 1 - d, largest gap", np.abs(gaps).max(), 0, 1.5 * step
        ),
        close("phase at d=.4, T=.01 (2 = hierarchical)", corner, 2, 0),
        close("phase at d=.85, T=.08 (1 = parallel)", parallel, 1, 0),
        close("phase at d=.005, T=.3 (3 = single)", phase[0, np.abs(t - 0.3).argmin()], 3, 0),
    ]


def draw(result: Result):
    """The map, with T = 1 - d and d_c."""
    figure, [[ax]] = plotting.panels(width=5.4, height=4)
    part = result.parts[0]
    colors = ListedColormap(["#f0f0f0", *plotting.COLORS[4:6], plotting.COLORS[2]])
    image = ax.pcolormesh(part["d"], part["t"], part["phase"].T, cmap=colors, vmin=-0.5, vmax=3.5)
    bar = figure.colorbar(image, ax=ax, ticks=range(4))
    bar.ax.set_yticklabels(NAMES)
    plotting.line(ax, part["d"], 1 - part["d"], index=6, label="$T = 1 - d$", style="--")
    ax.axvline(
        theory.critical_dilution(result.config.k), color="black", ls=":", label="$d_c$ at $T=0$"
    )
    plotting.labels(ax, "dilution $d$", "temperature $T$", f"K={result.config.k}")
    return figure


EXPERIMENT = Experiment(
    entry("multitask_hebbian.phases"),
    Phases(),
    Phases(size=20, iterations=600),
    measure,
    checks,
    draw,
    Tidy({"phase": "d t", "m": "d t pattern"}, {"d": "d", "t": "t"}),
    work=lambda c: c.size**2 * 3**c.k * c.iterations,
)
