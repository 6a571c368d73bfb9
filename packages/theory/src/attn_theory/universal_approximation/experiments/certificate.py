"""U1: the bound and the error of the constructed Transformer, against degree and width."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Experiment, Result, Settings, at_most, close, near
from ...references import known
from ...tables import Tidy
from ..construction import approximate, evaluate, grid_points
from ..references import REFERENCES
from ..targets import LIPSCHITZ, kinked


@dataclass(frozen=True, kw_only=True)
class Certificate(Settings):
    """Degrees, and the grid on which the sup error is taken."""

    degrees: tuple[int, ...] = (2, 4, 8, 16, 32)
    per_axis: int = 101


def measure(config: Certificate, degree: int) -> Arrays:
    """Error of the block's own output on the grid, and of the closed form against it."""
    construction = approximate(kinked, 2, degree, lipschitz=LIPSCHITZ)
    x = grid_points(2, config.per_axis)
    out = evaluate(construction.transformer(), x)
    return {
        "degree": degree,
        "hidden": construction.hidden,
        "error": np.abs(out - kinked(x)).max(0),
        "bound": construction.bound(),
        "block": np.abs(out - construction(x)).max(),
    }


def checks(result: Result) -> list[Check]:
    """The bound holds, the rate is 1/degree, the block is the closed form."""
    out = []
    references = known(REFERENCES, "certificate", result.config)
    for part in result.parts:
        degree = int(part["degree"])
        for i in range(2):
            error, bound = part["error"][i], part["bound"][i]
            out.append(at_most(f"error / bound, f{i + 1}, degree {degree}", error / bound, 1.0))
            for name, value in ((f"error, f{i + 1}", error), (f"bound, f{i + 1}", bound)):
                if degree in references[name]:
                    out.append(near(f"{name}, degree {degree}", value, references[name][degree]))
        if degree in references["hidden width"]:
            ratio = part["hidden"] / references["hidden width"][degree].value
            out.append(at_most(f"width / earlier width, degree {degree}", ratio, 1.8, "measured"))
        out.append(at_most(f"block v closed form, degree {degree}", part["block"], 1e-10))
    if result.config.degrees == (2, 4, 8, 16, 32):
        name = "exponent of the error in the degree, f1"
        out.append(close(f"{name}, from 16 to 32", slope(result, 2), -1.0, 0.1))
        claim = close(f"{name}, from 2 to 32", slope(result, 5), -1.0, 0.1)
        out.append(claim.deviates(-0.80, 0.02, "low degrees are not yet in the limit"))
    return out


def slope(result: Result, last: int) -> float:
    """Of log error of f1 in log degree, over the `last` largest degrees."""
    degree, error = result["degree"][-last:], result["error"][-last:, 0]
    return float(np.polyfit(np.log(degree), np.log(error), 1)[0])


def draw(result: Result):
    """Errors and bounds against degree and width."""
    figure, [axes] = plotting.panels(1, 2)
    for ax, x in zip(axes, (result["degree"], result["hidden"]), strict=True):
        for i in range(2):
            plotting.points(ax, x, result["error"][:, i], index=i, label=f"sup error, $f_{i + 1}$")
            plotting.line(ax, x, result["bound"][:, i], index=i, label=f"certified, $f_{i + 1}$")
        ax.set(xscale="log", yscale="log")
    degree = result["degree"]
    plotting.ticks(axes[0], degree)
    plotting.line(axes[0], degree, 1.2 / degree, index=6, label="slope -1", style=":")
    plotting.labels(axes[0], "degree $m$", "error")
    plotting.labels(axes[1], "hidden width $w$", "error", legend=False)
    return figure


EXPERIMENT = Experiment(
    entry("universal_approximation.certificate"),
    Certificate(),
    Certificate(degrees=(2, 4, 8), per_axis=41),
    measure,
    checks,
    draw,
    Tidy(
        {"degree": "", "hidden": "", "error": "output", "bound": "output", "block": ""},
        rename={"error": "sup"},
    ),
    work=lambda c: c.per_axis**2 * sum(m**3 for m in c.degrees),
    points=lambda config: config.degrees,
)
