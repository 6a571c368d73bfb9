"""Samples needed for a quadratic target, against the dimension."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_least, close
from ...tables import Tidy
from ..learning import test_errors


@dataclass(frozen=True, kw_only=True)
class Dimension(Config):
    """Sample size at which RFA's error on f1, p = 2, falls to the level; d keys each."""

    seeds: int = 4
    d: tuple[int, ...] = (6, 8, 12, 16)
    heads: int = 400
    level: float = 0.5
    noise: float = 0.1
    sizes: tuple[int, ...] = (32, 48, 72, 108, 162, 243, 364, 546, 820)
    device: str = "cpu"


def measure(config: Dimension, d: int) -> Arrays:
    """Test errors against size, and where their mean crosses the level."""
    errors = np.array([
        test_errors(
            "RFA", seed, d=d, keys=d, heads=config.heads, sizes=config.sizes, noise=config.noise,
            device=config.device,
        )[:, 0]
        for seed in config.streams
    ])  # fmt: skip
    logs = np.log(config.sizes)
    # np.interp wants an increasing abscissa: errors fall with the size.
    needed = [np.exp(np.interp(-config.level, -curve, logs)) for curve in errors]
    return {"d": d, "error": errors, "needed": np.array(needed)}


def slope(result: Result) -> float:
    """Of log samples in log d."""
    needed = np.log(result["needed"]).mean(1)
    return float(np.polyfit(np.log(result["d"]), needed, 1)[0])


def checks(result: Result) -> list[Check]:
    """The exponent 2 of a quadratic; a network would need (N d)^2 = d^4."""
    return [
        close("exponent of samples in d", slope(result), 2.0, 0.35, "recalled"),
        at_least("distance from the network's exponent 4", 4 - slope(result), 1.0, "recalled"),
    ]


def draw(result: Result):
    """Learning curves, and samples needed with reference slopes."""
    figure, [[left, right]] = plotting.panels(1, 2)
    config = result.config
    for i, part in enumerate(result.parts):
        mean = part["error"].mean(0)
        plotting.means(left, config.sizes, part["error"].T, index=i, label=f"d={int(part['d'])}")
        plotting.line(left, config.sizes, mean, index=i)
    left.axhline(config.level, color="black", lw=0.7, ls="--")
    left.set_xscale("log")
    plotting.ticks(left, config.sizes[::2])
    plotting.labels(left, "samples $n$", "test error, f1 p2")
    d, needed = result["d"].astype(float), result["needed"]
    plotting.means(right, d, needed, label=f"$d^{{{slope(result):.2f}}}$")
    middle = needed.mean() / np.exp(np.log(d).mean() * 2)
    plotting.line(right, d, middle * d**2, index=6, label="slope 2 (attention)", style="--")
    start = needed[0].mean() / d[0] ** 4
    plotting.line(right, d[:3], start * d[:3] ** 4, index=6, label="slope 4 (network)", style=":")
    right.set(xscale="log", yscale="log")
    plotting.ticks(right, d)
    plotting.labels(right, "dimension $d = N$", f"samples for an error of {config.level}")
    return figure


EXPERIMENT = Experiment(
    entry("random_feature_attention.dimension"),
    Dimension(),
    Dimension(seeds=1, heads=150, sizes=(32, 72, 162, 364, 820)),
    measure,
    checks,
    draw,
    Tidy(
        {"d": "", "error": "seed size", "needed": "seed"},
        {"size": "sizes"},
        {"error": "test_error"},
    ),
    work=lambda c: c.seeds * c.heads * (max(c.sizes) + 1500) * sum(d**2 for d in c.d),
    points=lambda config: config.d,
    revision=2,
)
