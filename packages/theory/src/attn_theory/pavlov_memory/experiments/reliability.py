"""P5: how many heads a deep network needs when heads fail (our reading of error propagation)."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, close, near
from ...references import known
from ...seeds import numpy_generator
from ...tables import Tidy
from .. import theory
from ..references import REFERENCES


@dataclass(frozen=True, kw_only=True)
class Reliability(Config):
    """Independent head failures with probability p."""

    p: float = 0.2
    heads: tuple[int, ...] = (1, 2, 4, 8)
    layers: tuple[int, ...] = (1, 2, 4, 8, 16, 24, 48)
    samples: int = 100_000


def measure(config: Reliability, heads: int) -> Arrays:
    """Share of simulated networks in which every layer keeps a head, for each depth."""
    rng = numpy_generator(config.stream, f"reliability {heads}")
    deepest = max(config.layers)
    first = np.full(config.samples, deepest)
    for layer in reversed(range(deepest)):
        lost = (rng.random((config.samples, heads)) < config.p).all(1)
        first[lost] = layer
    works = np.array([(first >= depth).mean() for depth in config.layers])
    return {
        "heads": heads,
        "works": works,
        "error": np.sqrt(np.maximum(works * (1 - works), 1 / config.samples) / config.samples),
        "law": theory.reliability(config.p, heads, np.array(config.layers)),
    }


def checks(result: Result) -> list[Check]:
    """The closed form's values and the simulation against it."""
    out, config = [], result.config
    references = known(REFERENCES, "reliability", config)[24]
    for part in result.parts:
        heads = int(part["heads"])
        if heads in references and 24 in config.layers:
            law = part["law"][config.layers.index(24)]
            out.append(near(f"law, H={heads}, L=24", law, references[heads]))
        gap = np.abs(part["works"] - part["law"]).max()
        out.append(close(f"simulation v law, H={heads}, every L", gap, 0.0,
                         4.5 * float(part["error"].max())))  # fmt: skip
    need = theory.required_heads(24, 0.05, config.p)
    reached = theory.reliability(config.p, np.ceil(need), 24)
    out.append(close("heads required for L=24, delta=.05", reached, 0.97, 0.02))
    return out


def draw(result: Result):
    """Reliability against depth, and its surface."""
    figure, [[left, right]] = plotting.panels(1, 2)
    config = result.config
    layers = np.arange(1, max(config.layers) + 1)
    for i, part in enumerate(result.parts):
        heads = int(part["heads"])
        plotting.points(left, config.layers, part["works"], part["error"], index=i,
                        label=f"H={heads}")  # fmt: skip
        plotting.line(left, layers, theory.reliability(config.p, heads, layers), index=i)
    plotting.labels(left, "layers $L$", f"every layer keeps a head, $p={config.p}$")
    h, deep = np.meshgrid(np.arange(1, 11), layers)
    surface = right.pcolormesh(h, deep, theory.reliability(config.p, h, deep), cmap="viridis")
    figure.colorbar(surface, ax=right)
    for style, delta in (("--", 0.05), (":", 0.5)):
        need = np.log(layers / delta) / np.log(1 / config.p)
        right.plot(need, layers, style, color="red", label=rf"bound, $\delta={delta}$")
    right.set(xlim=(0.5, 10.5))
    plotting.labels(right, "heads $H$", "layers $L$", "$(1 - p^H)^L$", legend=False)
    right.legend(frameon=True)
    return figure


EXPERIMENT = Experiment(
    entry("pavlov_memory.reliability"),
    Reliability(),
    Reliability(samples=40_000),
    measure,
    checks,
    draw,
    Tidy(
        {"heads": "", "works": "layers", "error": "layers", "law": "layers"}, {"layers": "layers"}
    ),
    work=lambda c: c.samples * sum(c.heads) * max(c.layers),
    points=lambda config: config.heads,
)
