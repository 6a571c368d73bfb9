"""U4: without positions the statement is false, by a certified margin."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_least, at_most, close
from ...tables import Tidy
from ..construction import evaluate, grid_points
from ..model import TransformerConfig
from ..targets import kinked, position_bound, times_the_mean
from ..training import train

TARGETS = {"kinked": kinked, "equivariant": times_the_mean}


@dataclass(frozen=True, kw_only=True)
class Positions(Config):
    """Blocks without positions, on a target that needs them and on one that does not."""

    seeds: int = 3
    widths: tuple[int, ...] = (4, 16, 64)
    steps: int = 1000
    batch: int = 512
    per_axis: int = 101
    device: str = "cpu"


def measure(config: Positions, point: tuple[str, int]) -> Arrays:
    """Errors, the bound, and how well the block commutes with a permutation."""
    name, width = point
    f = TARGETS[name]
    models = train(
        TransformerConfig(2, hidden=width, positions=False), f, seeds=config.seeds, 
        first=config.stream,
        steps=config.steps, batch=config.batch, device=config.device,
    )  # fmt: skip
    x = grid_points(2, config.per_axis)
    outs = np.stack([evaluate(model, x) for model in models])
    swapped = np.stack([evaluate(model, x[:, ::-1].copy())[:, ::-1] for model in models])
    return {
        "target": name,
        "width": width,
        "sup": np.abs(outs - f(x)).max((1, 2)),
        "commutes": np.abs(outs - swapped).max(),
        "bound": position_bound(f, x),
    }


def checks(result: Result) -> list[Check]:
    """The lower bound on every run; equivariant targets are learned."""
    out = []
    errors: dict[int, float] = {}
    for part in result.parts:
        name, width = str(part["target"]), int(part["width"])
        tag = f"{name}, width {width}"
        out.append(at_most(f"T(PX) v P T(X), {tag}", part["commutes"], 1e-6))
        if name == "kinked":
            out.append(close(f"lower bound, {tag}", part["bound"], 0.5, 1e-9))
            out.append(at_least(f"least sup error, {tag}", part["sup"].min(), 0.5))
        else:
            errors[width] = float(np.median(part["sup"]))
    wide, narrow = max(errors), min(errors)
    enough = 0.1 if result.config.steps >= 1000 else 0.25
    out.append(at_most("equivariant target, widest", errors[wide], enough, "chosen"))
    out.append(at_most(f"equivariant, width {wide} / {narrow}", errors[wide] / errors[narrow],
                       1.0, "chosen"))  # fmt: skip
    return out


def draw(result: Result):
    """Sup errors against width with the bound."""
    figure, [[ax]] = plotting.panels(width=4.8)
    for i, name in enumerate(TARGETS):
        chosen = result["target"] == name
        sup = result["sup"][chosen]
        label = {"kinked": "f that needs positions", "equivariant": "equivariant f"}[name]
        plotting.means(ax, result["width"][chosen], sup, index=i, label=label)
    ax.axhline(result["bound"].max(), color="black", ls="--", label="certified lower bound")
    ax.set(xscale="log", yscale="log")
    plotting.ticks(ax, result.config.widths)
    plotting.labels(ax, "hidden width $w$", "sup error without positions")
    return figure


EXPERIMENT = Experiment(
    entry("universal_approximation.positions"),
    Positions(),
    Positions(widths=(4, 32), seeds=2, steps=300, per_axis=41),
    measure,
    checks,
    draw,
    Tidy({"target": "", "width": "", "sup": "seed", "commutes": "", "bound": ""}),
    work=lambda c: c.seeds * c.steps * c.batch * len(c.widths),
    points=lambda config: [(name, w) for name in TARGETS for w in config.widths],
    revision=2,
)
