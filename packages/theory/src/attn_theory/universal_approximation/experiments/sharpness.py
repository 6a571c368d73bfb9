"""U5: how sharp the copying heads have to be."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Experiment, Result, Settings, at_most, close
from ...tables import Tidy
from ..construction import approximate, evaluate, grid_points
from ..targets import LIPSCHITZ, kinked


@dataclass(frozen=True, kw_only=True)
class Sharpness(Settings):
    """Values of B at one degree."""

    degree: int = 8
    sharpness: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0, 25.0, 30.0)
    per_axis: int = 51


def measure(config: Sharpness, sharpness: float) -> Arrays:
    """Error, bound, and distance from perfect copying."""
    built = approximate(kinked, 2, config.degree, lipschitz=LIPSCHITZ, sharpness=sharpness)
    x = grid_points(2, config.per_axis)
    out = evaluate(built.transformer(), x)
    return {
        "sharpness": sharpness,
        "error": np.abs(out - kinked(x)).max(0),
        "bound": built.bound(),
        "from_copying": np.abs(out - built(x)).max(),
        "leak": built.leak,
    }


def checks(result: Result) -> list[Check]:
    """The bound at every B, the exponential part, and the floor."""
    out = []
    for part in result.parts:
        ratio = (part["error"] / part["bound"]).max()
        out.append(at_most(f"error / bound, B={float(part['sharpness']):g}", ratio, 1.0))
    b, gap = result["sharpness"], result["from_copying"]
    straight = (b >= 4) & (b <= 20)
    slope = np.polyfit(b[straight], np.log(gap[straight]), 1)[0]
    out.append(close("slope of log |T - closed form| in B", slope, -1.0, 0.03))
    return out


def draw(result: Result):
    """Errors against B."""
    figure, [[ax]] = plotting.panels(width=5)
    b = result["sharpness"]
    plotting.points(ax, b, result["error"].max(1), label="sup error")
    plotting.line(ax, b, result["bound"].max(1), label="certified")
    plotting.points(ax, b, result["from_copying"], index=1, label="distance from exact copying")
    middle = len(b) // 3
    scale = result["from_copying"][middle] / result["leak"][middle]
    plotting.line(ax, b, scale * result["leak"], index=1, label="proportional to the leak")
    ax.set_yscale("log")
    plotting.labels(ax, "sharpness $B$", "error")
    return figure


EXPERIMENT = Experiment(
    entry("universal_approximation.sharpness"),
    Sharpness(),
    Sharpness(degree=4, per_axis=21),
    measure,
    checks,
    draw,
    Tidy(
        {
            "sharpness": "",
            "error": "output",
            "bound": "output",
            "from_copying": "",
            "leak": "",
        },
        rename={"error": "sup"},
    ),
    work=lambda c: len(c.sharpness) * c.per_axis**2 * c.degree**3,
    points=lambda config: config.sharpness,
)
