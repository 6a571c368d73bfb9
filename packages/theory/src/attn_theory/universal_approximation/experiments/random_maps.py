"""U1: the bound on random convex piecewise-linear maps."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_most, near
from ...references import known
from ...seeds import numpy_generator
from ...tables import Tidy
from ..construction import approximate, grid_points
from ..references import REFERENCES
from ..targets import convex_pieces


@dataclass(frozen=True, kw_only=True)
class RandomMaps(Config):
    """Each seed gives two maps of four pieces."""

    seeds: int = 10
    degree: int = 8
    per_axis: int = 101


def measure(config: RandomMaps, seed: int) -> Arrays:
    """Errors and bounds of the two maps of one seed."""
    f, constants = convex_pieces(numpy_generator(seed, "convex pieces"))
    construction = approximate(f, 2, config.degree, lipschitz=constants)
    x = grid_points(2, config.per_axis)
    error = np.abs(construction(x) - f(x)).max(0)
    return {"number": seed, "error": error, "bound": construction.bound()}


def checks(result: Result) -> list[Check]:
    """No violation, and a bound that is not idle."""
    ratio = result["error"] / result["bound"]
    out = [at_most(f"largest error / bound of {ratio.size} maps", ratio.max(), 1.0)]
    references = known(REFERENCES, "random_maps", result.config)["largest error / bound"]
    for reference in references.values():
        out.append(near("largest error / bound v earlier run", ratio.max(), reference))
    return out


def draw(result: Result):
    """Error against bound."""
    figure, [[ax]] = plotting.panels(width=4.2)
    plotting.points(ax, result["bound"].ravel(), result["error"].ravel(), label="random maps")
    top = float(result["bound"].max())
    plotting.line(ax, [0, top], [0, top], index=6, label="error = bound")
    plotting.labels(ax, "certified", "sup error")
    return figure


EXPERIMENT = Experiment(
    entry("universal_approximation.random_maps"),
    RandomMaps(),
    RandomMaps(per_axis=41),
    measure,
    checks,
    draw,
    Tidy({"number": "", "error": "map", "bound": "map"}, rename={"error": "sup"}),
    work=lambda c: c.seeds * c.per_axis**2 * c.degree**3,
    points=lambda config: config.streams,
)
