"""F6: the Hamiltonian is a sum of products of losses."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_most
from ...seeds import numpy_generator
from ...tables import Tidy
from .. import theory
from ..dynamics import glauber
from ..model import Network, draw_patterns


@dataclass(frozen=True, kw_only=True)
class Cost(Config):
    """Trajectories from random spins; seeds are replicas."""

    seeds: int = 8
    n: int = 600
    k: int = 3
    dilution: float = 0.3
    beta: float = 5.0
    sweeps: int = 12


def measure(config: Cost, point: None) -> Arrays:
    """Energy and losses after every sweep."""
    rng = numpy_generator(config.stream, "cost")
    patterns = draw_patterns(rng, config.n, config.k, config.dilution, config.seeds)
    network = Network.storing(patterns)
    spins = rng.choice((-1.0, 1.0), (config.n, config.seeds))
    blank = (patterns == 0).mean(0)
    energy, products = [], []
    for _ in range(config.sweeps):
        minus, plus = theory.losses(patterns, spins)
        energy.append(network.energy(spins))
        products.append((minus * plus).sum(1))
        spins = glauber(rng, network, spins, config.beta, 1).spins
    own = np.square(patterns).sum((0, 2)) / config.n**2
    constant = -0.5 * ((1 - blank / 2) ** 2).sum(1) + 0.5 * own
    return {"energy": np.array(energy), "products": np.array(products), "constant": constant}


def checks(result: Result) -> list[Check]:
    """The identity H/N = sum L^- L^+ / 2 + const."""
    part = result.parts[0]
    gap = np.abs(part["energy"] - 0.5 * part["products"] - part["constant"]).max()
    return [at_most("|H/N - (sum L-L+ / 2 + const)|", gap, 1e-10, "abstract")]


def draw(result: Result):
    """Energy against the sum of products."""
    figure, [[ax]] = plotting.panels(width=4.8)
    part = result.parts[0]
    shifted = part["energy"] - part["constant"]
    for replica in range(result.config.seeds):
        plotting.points(ax, part["products"][:, replica], shifted[:, replica], index=replica)
    x = np.array([part["products"].min(), part["products"].max()])
    plotting.line(ax, x, x / 2, index=6, label="slope 1/2")
    plotting.labels(ax, r"$\sum_\mu L^-_\mu L^+_\mu$", "$H/N$ - const")
    return figure


EXPERIMENT = Experiment(
    entry("multitask_hebbian.cost"),
    Cost(),
    Cost(n=200),
    measure,
    checks,
    draw,
    Tidy({"energy": "sweep seed", "products": "sweep seed", "constant": "seed"}),
    work=lambda c: c.seeds * c.n * c.k * c.sweeps,
)
