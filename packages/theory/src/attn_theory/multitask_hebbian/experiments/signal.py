"""F7: one synchronous step, by signal to noise."""

from dataclasses import dataclass

import numpy as np
from scipy.special import erf
from scipy.stats import binom

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, close
from ...seeds import numpy_generator
from ...tables import Tidy
from ..dynamics import parallel_step
from ..model import Network, draw_examples, draw_patterns, entropy


@dataclass(frozen=True, kw_only=True)
class Signal(Config):
    """Loads K/N when storing, and numbers of examples when learning; seeds are replicas."""

    seeds: int = 32
    n: int = 1000
    dilution: float = 0.3
    loads: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    quality: float = 0.2
    examples: tuple[int, ...] = (2, 5, 12, 24, 50, 100, 400)


def measure(config: Signal, point: tuple[str, float]) -> Arrays:
    """Share of right spins after one step from the first archetype, where it is not blank."""
    kind, value = point
    rng = numpy_generator(config.stream, f"signal {point}")
    k = max(2, round(value * config.n)) if kind == "load" else 1
    patterns = draw_patterns(rng, config.n, k, config.dilution, config.seeds)
    first = patterns[..., 0]
    start = np.where(first == 0, rng.choice((-1.0, 1.0), first.shape), first)
    if kind == "load":
        network = Network.storing(patterns)
        law = 0.5 * (1 + erf(np.sqrt(config.n / (2 * (k - 1)))))
    else:
        count = int(value)
        network = Network.supervised(draw_examples(rng, patterns, config.quality, count),
                                     config.quality)  # fmt: skip
        chance = binom.pmf(np.arange(count + 1), count, (1 + config.quality) / 2)
        more = 2 * np.arange(count + 1) - count
        # A tied vote has no field and keeps the spin, which was right.
        law = chance[more >= 0].sum()
    after = parallel_step(network, start)
    right = np.array([(a == f)[f != 0].mean() for a, f in zip(after.T, first.T, strict=True)])
    rho = entropy(config.quality, int(value)) if kind == "examples" else 0.0
    return {"examples": kind == "examples", "value": value, "right": right, "law": law, "rho": rho}


def checks(result: Result) -> list[Check]:
    """Both formulas, within their noise."""
    out = []
    for part in result.parts:
        kind = "M" if part["examples"] else "K/N"
        se = part["right"].std() / result.config.seeds**0.5
        out.append(close(f"P(s' = xi), {kind}={float(part['value']):g}", part["right"].mean(),
                         float(part["law"]), 4 * se + 2e-3))  # fmt: skip
    return out


def draw(result: Result):
    """Against load and against entropy."""
    figure, [[left, right]] = plotting.panels(1, 2)
    learned = result["examples"]
    share = result["right"]
    load = result["value"][~learned]
    plotting.means(left, load, share[~learned], label="one step")
    plotting.line(
        left, load, result["law"][~learned], index=1, label=r"$(1 + \mathrm{erf}\sqrt{N/2K})/2$"
    )
    left.set_xscale("log")
    plotting.labels(left, "load $K / N$", r"$P(s' = \xi)$")
    rho = result["rho"][learned]
    plotting.means(right, rho, share[learned], label="one step")
    plotting.line(right, rho, result["law"][learned], index=1, label="binomial, ties kept")
    fine = np.geomspace(rho.min(), rho.max(), 100)
    plotting.line(right, fine, 0.5 * (1 + erf(1 / np.sqrt(2 * fine))), index=6,
                  label=r"$(1 + \mathrm{erf}(1/\sqrt{2\rho}))/2$", style="--")  # fmt: skip
    right.axvline(1, color="black", lw=0.7, ls=":")
    right.set_xscale("log")
    plotting.labels(right, r"data-set entropy $\rho$", r"$P(s' = \xi)$")
    return figure


EXPERIMENT = Experiment(
    entry("multitask_hebbian.signal"),
    Signal(),
    Signal(n=400, loads=(0.1, 0.8), examples=(5, 24)),
    measure,
    checks,
    draw,
    Tidy({"examples": "", "value": "", "rho": "", "right": "seed", "law": ""}),
    work=lambda c: c.seeds * c.n * (c.n * sum(c.loads) + sum(c.examples)),
    points=lambda config: [
        *(("load", x) for x in config.loads),
        *(("examples", x) for x in config.examples),
    ],
)
