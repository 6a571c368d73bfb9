"""U6: a smooth target needs a low degree."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Experiment, Result, Settings, at_most
from ...tables import Tidy
from ..construction import approximate, grid_points
from ..targets import LIPSCHITZ, kinked, smooth


@dataclass(frozen=True, kw_only=True)
class Smooth(Settings):
    """Degrees for cos(pi x1) x2, beside the kinked target."""

    degrees: tuple[int, ...] = (2, 4, 8, 16)
    per_axis: int = 101


def measure(config: Smooth, degree: int) -> Arrays:
    """Sup and root-mean-square errors of both targets."""
    x = grid_points(2, config.per_axis)
    constants = ((np.pi, 1.0), (np.pi, 1.0))
    built = approximate(smooth, 2, degree, lipschitz=constants)
    gap = built(x) - smooth(x)
    other = approximate(kinked, 2, degree, lipschitz=LIPSCHITZ)
    inside = np.all((x > 0.25) & (x < 0.75), 1)
    return {
        "degree": degree,
        "sup": np.abs(gap).max(),
        "rms": np.sqrt((gap[:, 0] ** 2).mean()),
        "inside": np.abs(gap[inside]).max(),
        "bound": built.bound().max(),
        "hidden": built.hidden / 2,
        "kinked_rms": np.sqrt(((other(x) - kinked(x)) ** 2).mean()),
    }


def checks(result: Result) -> list[Check]:
    """Degree 4 gives a small error for the smooth target."""
    out = []
    for part in result.parts:
        degree = int(part["degree"])
        out.append(at_most(f"error / bound, degree {degree}", part["sup"] / part["bound"], 1.0))
        if degree == 4:
            out.append(at_most("rms at degree 4", part["rms"], 0.1, "chosen"))
    return out


def draw(result: Result):
    """Errors against degree."""
    figure, [[ax]] = plotting.panels(width=5)
    degree = result["degree"]
    for i, (name, label) in enumerate((
        ("sup", "sup error"), ("rms", "rms"), ("inside", "sup error away from the border"),
    )):  # fmt: skip
        plotting.points(ax, degree, result[name], index=i, label=label)
    plotting.line(ax, degree, result["bound"], index=0, label="certified")
    plotting.line(ax, degree, result["kinked_rms"], index=3, label="rms of the kinked target")
    ax.set(xscale="log", yscale="log")
    plotting.ticks(ax, degree)
    plotting.labels(ax, "degree $m$", r"error, $\cos(\pi x_1)\, x_2$")
    return figure


EXPERIMENT = Experiment(
    entry("universal_approximation.smooth"),
    Smooth(),
    Smooth(degrees=(2, 4), per_axis=41),
    measure,
    checks,
    draw,
    Tidy(
        {
            "degree": "",
            "hidden": "",
            "sup": "",
            "rms": "",
            "inside": "",
            "bound": "",
            "kinked_rms": "",
        }
    ),
    work=lambda c: c.per_axis**2 * sum(m**3 for m in c.degrees),
    points=lambda config: config.degrees,
)
