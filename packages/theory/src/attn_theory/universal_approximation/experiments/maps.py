"""U2: the target, the constructed Transformer, and their difference."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Experiment, Result, Settings, at_most
from ...tables import Tidy
from ..construction import approximate, evaluate, grid_points
from ..targets import LIPSCHITZ, kinked


@dataclass(frozen=True, kw_only=True)
class Maps(Settings):
    """Degree, and the grid of the pictures."""

    degree: int = 8
    per_axis: int = 81


def measure(config: Maps, point: None) -> Arrays:
    """Values on the grid."""
    construction = approximate(kinked, 2, config.degree, lipschitz=LIPSCHITZ)
    x = grid_points(2, config.per_axis)
    shape = (config.per_axis, config.per_axis, 2)
    return {
        "grid": np.linspace(0, 1, config.per_axis),
        "target": kinked(x).reshape(shape),
        "output": evaluate(construction.transformer(), x).reshape(shape),
        "bound": construction.bound(),
    }


def checks(result: Result) -> list[Check]:
    """Nowhere above the bound."""
    part = result.parts[0]
    error = np.abs(part["output"] - part["target"]).max((0, 1))
    pairs = zip(error, part["bound"], strict=True)
    return [at_most(f"f{i + 1}: error / bound", e / b, 1.0) for i, (e, b) in enumerate(pairs)]


def draw(result: Result):
    """A row per output."""
    figure, axes = plotting.panels(2, 3, width=3, height=2.7)
    part = result.parts[0]
    for i, row in enumerate(axes):
        error = np.abs(part["output"] - part["target"])[..., i]
        pictures = (part["target"][..., i], part["output"][..., i], error)
        titles = (f"f{i + 1}", f"T, degree {result.config.degree}", "|T - f|")
        for ax, picture, title in zip(row, pictures, titles, strict=True):
            image = ax.imshow(picture.T, origin="lower", extent=(0, 1, 0, 1), cmap="viridis")
            figure.colorbar(image, ax=ax, shrink=0.8)
            ax.set(xlabel="$x_1$", ylabel="$x_2$", title=title)
    return figure


EXPERIMENT = Experiment(
    entry("universal_approximation.maps"),
    Maps(),
    Maps(per_axis=31),
    measure,
    checks,
    draw,
    Tidy(
        {"target": "x1 x2 component", "output": "x1 x2 component", "bound": "component"},
        {"x1": "grid", "x2": "grid"},
    ),
    work=lambda c: c.per_axis**2 * c.degree**3,
)
