"""U3: the same block trained: far smaller, and without a certificate."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_least, at_most, close
from ...references import known
from ...tables import Tidy
from ..construction import approximate, evaluate, grid_points
from ..model import TransformerConfig
from ..references import REFERENCES
from ..targets import LIPSCHITZ, kinked
from ..training import train


@dataclass(frozen=True, kw_only=True)
class Trained(Config):
    """Widths of the feed-forward layer."""

    seeds: int = 6
    widths: tuple[int, ...] = (4, 16, 64, 256)
    steps: int = 1500
    batch: int = 512
    per_axis: int = 101
    device: str = "cpu"


def measure(config: Trained, width: int) -> Arrays:
    """Sup and root-mean-square error of every seed."""
    models = train(
        TransformerConfig(2, hidden=width), kinked, seeds=config.seeds, 
        first=config.stream, steps=config.steps,
        batch=config.batch, device=config.device,
    )  # fmt: skip
    x = grid_points(2, config.per_axis)
    gaps = np.stack([evaluate(model, x) - kinked(x) for model in models])
    return {
        "width": width,
        "sup": np.abs(gaps).max((1, 2)),
        "rms": np.sqrt((gaps**2).mean((1, 2))),
    }


def checks(result: Result) -> list[Check]:
    """Small at width 64, falling with the width; and smaller than the construction's width."""
    out = []
    sup = {int(part["width"]): part["sup"] for part in result.parts}
    rms = {int(part["width"]): part["rms"] for part in result.parts}
    if 64 in sup:
        out.append(at_most("sup error at width 64, mean of the seeds", sup[64].mean(), 0.1))
    for width, reference in known(REFERENCES, "trained", result.config)["rms"].items():
        if width in rms:
            ours, seeds = rms[width], len(rms[width])
            spread = float(ours.std(ddof=1))
            # Theirs is one seed: it lies within the spread of ours, which few seeds tell roughly.
            out.append(close(f"rms at width {width}, mean of {seeds} seeds (spread {spread:.2g}) v "
                             "one earlier seed", ours.mean(), reference.value,
                             6 * spread * (1 + 1 / seeds) ** 0.5, "measured"))  # fmt: skip
    narrow, wide = min(rms), max(rms)
    enough = 0.4 if result.config.steps >= 1000 else 0.95
    out.append(at_most(f"rms, width {wide} / width {narrow}", rms[wide].mean() / rms[narrow].mean(),
                       enough, "chosen"))  # fmt: skip
    built = approximate(kinked, 2, 16, lipschitz=LIPSCHITZ)
    ratio = built.hidden / 64
    out.append(at_least("width of the construction for a like error / 64", ratio, 20, "measured"))
    return out


def draw(result: Result):
    """Errors against width."""
    figure, [[ax]] = plotting.panels(width=4.8)
    width = result["width"]
    references = known(REFERENCES, "trained", result.config)
    for i, name in enumerate(("sup", "rms")):
        values = result[name]
        plotting.means(ax, width, values, index=i, label=f"{name}, trained")
        plotting.stars(ax, references[name], index=i, label="earlier seed" if i == 0 else None)
    ax.set(xscale="log", yscale="log")
    plotting.ticks(ax, width)
    plotting.labels(ax, "hidden width $w$", "error on the grid")
    return figure


EXPERIMENT = Experiment(
    entry("universal_approximation.trained"),
    Trained(),
    Trained(widths=(4, 16), seeds=2, steps=300),
    measure,
    checks,
    draw,
    Tidy({"width": "", "sup": "seed", "rms": "seed"}),
    work=lambda c: c.seeds * c.steps * c.batch * sum(16 + w for w in c.widths),
    points=lambda config: config.widths,
    revision=2,
)
