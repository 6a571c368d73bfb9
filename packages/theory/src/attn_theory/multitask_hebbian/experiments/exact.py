"""Small networks: Glauber chains against the sum over all states."""

from dataclasses import dataclass

import numpy as np

from ... import montecarlo, plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, close
from ...seeds import numpy_generator
from ...tables import Tidy
from ..dynamics import glauber
from ..exact import boltzmann
from ..model import Network, draw_patterns, magnetisations


@dataclass(frozen=True, kw_only=True)
class Exact(Config):
    """One network per temperature, with many chains; seeds are chains."""

    seeds: int = 1000
    n: int = 12
    k: int = 2
    dilution: float = 0.3
    temperatures: tuple[float, ...] = (0.2, 0.4, 0.8)
    sweeps: int = 300

    def __post_init__(self):
        super().__post_init__()
        if self.seeds < 2 or self.n > 20 or self.sweeps < 2:
            raise ValueError(
                f"seeds and sweeps must be at least 2, n at most 20, got {self.seeds}, "
                f"{self.sweeps}, {self.n}"
            )


def measure(config: Exact, t: float) -> Arrays:
    """Energy over the later half of the chains, overlap products at their end, and the sums."""
    rng = numpy_generator(config.stream, f"exact {t}")
    one = draw_patterns(rng, config.n, config.k, config.dilution)
    patterns = np.repeat(one, config.seeds, 1)
    spins = rng.choice((-1.0, 1.0), patterns.shape[:2])
    chain = glauber(rng, Network.storing(patterns), spins, 1 / t, config.sweeps)
    m = magnetisations(patterns, chain.spins)
    law = boltzmann(Network.storing(one), one[:, 0], 1 / t)
    return {
        "temperature": t,
        "energy": config.n * chain.energy[config.sweeps // 2 :].mean(0),
        "products": m[:, :, None] * m[:, None],
        "energy_law": law.mean_energy,
        "products_law": law.overlap_products,
    }


def checks(result: Result) -> list[Check]:
    """Energy and overlap products within four standard errors."""
    out = []
    for part in result.parts:
        tag = f"T={float(part['temperature'])}"
        energy, products = part["energy"], part["products"]
        out.append(close(f"energy, {tag}", energy.mean(), float(part["energy_law"]),
                         4 * float(montecarlo.standard_error(energy))))  # fmt: skip
        gap = products.mean(0) - part["products_law"]
        # Where chains agree no error is less than what one chain elsewhere would make of it.
        error = np.maximum(montecarlo.standard_error(products), 1 / result.config.seeds)
        largest = np.abs(gap / error).max()
        out.append(close(f"<m_a m_b>, {tag}: largest gap in standard errors", largest, 0, 4.5))
    return out


def draw(result: Result):
    """Energy against temperature."""
    figure, [[ax]] = plotting.panels(width=4.6)
    t = result["temperature"]
    plotting.means(ax, t, result["energy"], label="Glauber chains")
    plotting.points(ax, t, result["energy_law"], index=1, label="sum over all states")
    plotting.labels(
        ax,
        "temperature $T$",
        rf"energy $\langle H\rangle$, $N={result.config.n}$, $K={result.config.k}$",
    )
    return figure


EXPERIMENT = Experiment(
    entry("multitask_hebbian.exact"),
    Exact(),
    Exact(seeds=400, temperatures=(0.2, 0.8)),
    measure,
    checks,
    draw,
    Tidy(
        {
            "temperature": "",
            "energy": "seed",
            "energy_law": "",
            "products": "seed a b",
            "products_law": "a b",
        }
    ),
    work=lambda c: c.seeds * c.n * c.k * c.sweeps * len(c.temperatures),
    points=lambda config: config.temperatures,
)
