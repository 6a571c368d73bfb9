"""P1: crosstalk of a Hebbian memory."""

from dataclasses import dataclass

import numpy as np
import torch

from core_attn import bidirectional_linear_attention

from ... import montecarlo, plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, close
from ...seeds import torch_generator
from ...tables import Tidy
from .. import theory
from ..rules import unit

SETTINGS = ((16, 8), (64, 16), (64, 64), (256, 64), (256, 256))


@dataclass(frozen=True, kw_only=True)
class Errors(Config):
    """Loads n/d at each width; repetitions are of keys and values, with 32 bits per value."""

    widths: tuple[int, ...] = (16, 64, 256, 1024)
    loads: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0)
    bits: int = 32
    repetitions: int = 64
    device: str = "cpu"


def measure(config: Errors, point: tuple[int, float]) -> Arrays:
    """Relative error and bit error of recall, each repetition one sample."""
    d, load = point
    n = round(load * d)
    generator = torch_generator(config.stream, f"errors {d} {n}", config.device)

    def draw(count: int) -> np.ndarray:
        shape = {"generator": generator, "device": config.device}
        k = unit(torch.randn(count, 1, n, d, **shape))
        v = 2.0 * torch.randint(0, 2, (count, 1, n, config.bits), **shape) - 1
        out = bidirectional_linear_attention(k, k, v, scale=1.0)
        relative = (out - v).square().mean((1, 2, 3))
        wrong = (out * v < 0).float().mean((1, 2, 3))
        return torch.stack((relative, wrong), -1).cpu().numpy()

    # Small memories are cheap and vary more from one repetition to the next.
    repetitions = config.repetitions * max(1, 1024 // d)
    mean, error = montecarlo.average(draw, repetitions, max(2, 2**22 // (n * max(n, d))))
    return {
        "d": d,
        "n": n,
        "measured": mean,
        "error": error,
        "law": np.array((theory.hebbian_error(n, d), theory.bit_error(n, d))),
    }


def checks(result: Result) -> list[Check]:
    """Both laws at the five settings; the bit law takes the crosstalk for Gaussian."""
    out = []
    for part in result.parts:
        d, n = int(part["d"]), int(part["n"])
        if (d, n) in SETTINGS:
            mean, se, law = part["measured"], part["error"], part["law"]
            out.append(close(f"error, d={d}, n={n}", mean[0], law[0], 3 * se[0]))
            bias = 0.6 * law[1] / d
            out.append(close(f"bit error, d={d}, n={n}", mean[1], law[1], 3 * se[1] + bias))
    return out


def draw(result: Result):
    """Both errors against load."""
    figure, [axes] = plotting.panels(1, 2)
    load = np.geomspace(0.08, 2.5, 200)
    for i, d in enumerate(result.config.widths):
        chosen = result["d"] == d
        x = result["n"][chosen] / d
        for ax, j in zip(axes, (0, 1), strict=True):
            y, bars = result["measured"][chosen, j], result["error"][chosen, j]
            plotting.points(ax, x, y, bars, index=i, label=f"d={d}")
    for i, d in ((0, 16), (3, 1024)):
        n = load * d
        line = {"index": i, "label": f"law, d={d}"}
        plotting.line(axes[0], load[n > 1], theory.hebbian_error(n, d)[n > 1], **line)
        plotting.line(axes[1], load[n > 1.5], theory.bit_error(n[n > 1.5], d), **line)
    axes[0].set(xscale="log", yscale="log")
    axes[1].set(xscale="log", yscale="log", ylim=(1e-3, 0.5))
    plotting.labels(axes[0], "load $n / d_k$", "relative error")
    plotting.labels(axes[1], "load $n / d_k$", "bit error")
    return figure


EXPERIMENT = Experiment(
    entry("pavlov_memory.errors"),
    Errors(),
    Errors(widths=(16, 64, 256), repetitions=16),
    measure,
    checks,
    draw,
    Tidy(
        {"d": "", "n": "", "measured": "kind", "error": "kind", "law": "kind"},
        {"kind": ("relative error", "bit error")},
    ),
    work=lambda c: (
        c.repetitions * sum(load * max(1024, d) * d for d in c.widths for load in c.loads)
    ),
    points=lambda config: [(d, load) for d in config.widths for load in config.loads],
)
