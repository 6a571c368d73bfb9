"""F4, F5: learning from examples, with and without a teacher."""

import warnings
from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...experiment import Arrays, Check, Config, Experiment, Result, at_least, close
from ...references import known
from ...seeds import numpy_generator
from .. import theory
from ..dynamics import glauber
from ..model import (
    Network,
    draw_examples,
    draw_patterns,
    entropy,
    hierarchical_spins,
    magnetisations,
)
from ..references import REFERENCES

NOISE = "at finite N, couplings without a teacher carry noise of order sqrt(K M / N)"


@dataclass(frozen=True, kw_only=True)
class Examples(Config):
    """Qualities and examples, in network sizes; seeds are replicas.

    Attributes:
        qualities: r; for each, numbers of examples around (1 - r^2) / r^2.
        ratios: numbers of examples in units of that threshold.
        n: spins.
        small: network sizes at which K M comes close to N, at r = .1 and the threshold.
    """

    seeds: int = 10
    qualities: tuple[float, ...] = (0.1, 0.2, 0.4)
    ratios: tuple[float, ...] = (0.2, 1.0, 4.0, 16.0)
    n: int = 3000
    small: tuple[int, ...] = (200, 400, 1000, 2000)
    k: int = 2
    dilution: float = 0.3
    beta: float = 10.0
    sweeps: int = 8
    averaged: int = 4


def points(config: Examples) -> list[tuple[float, int, int]]:
    """Quality, examples and size."""
    grid = []
    for r in config.qualities:
        threshold = (1 - r**2) / r**2
        counts = [max(1, round(ratio * threshold)) for ratio in config.ratios]
        # More examples than spins would be another regime, and gigabytes.
        grid += [(r, count, config.n) for count in counts if config.k * count <= config.n]
    threshold = round((1 - 0.1**2) / 0.1**2)
    return [*grid, *((0.1, threshold, n) for n in config.small)]


def measure(config: Examples, point: tuple[float, int, int]) -> Arrays:
    """Overlaps with the archetypes, both protocols on the same examples, and theory."""
    quality, count, n = point
    rng = numpy_generator(config.stream, f"examples {point}")
    # Small networks fluctuate more and cost less.
    replicas = config.seeds * max(1, 2000 // n)
    patterns = draw_patterns(rng, n, config.k, config.dilution, replicas)
    shown = draw_examples(rng, patterns, quality, count)
    start = hierarchical_spins(rng, patterns)
    overlaps = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # leaving the low-storage regime is the point
        networks = (Network.supervised(shown, quality), Network.unsupervised(shown, quality))
    for network in networks:
        # Supervised couplings need the mean of the examples alone; both start alike.
        spins_rng = numpy_generator(config.stream, f"examples spins {point}")
        _, mean = glauber(spins_rng, network, start, config.beta, config.sweeps,
                          averaged=config.averaged)  # fmt: skip
        overlaps.append(np.sort(magnetisations(patterns, mean), 1)[:, ::-1])
    rho = entropy(quality, count)
    site = theory.learned_entries(config.k, config.dilution, quality, count)
    guess = theory.hierarchical(config.k, config.dilution)
    n_mu = theory.solve(site, config.beta, guess, rho=rho, iterations=2000)
    return {
        "quality": quality,
        "examples": count,
        "n": n,
        "rho": rho,
        "overlap": np.array(overlaps),
        "theory": np.sort(theory.archetype(n_mu, site, config.beta, rho))[::-1],
    }


def checks(result: Result) -> list[Check]:
    """Earlier numbers, agreement of the protocols at low storage, departure at high."""
    out, config = [], result.config
    for part in result.parts:
        r, count, n = float(part["quality"]), int(part["examples"]), int(part["n"])
        supervised, unsupervised = part["overlap"]
        tag = f"r={r}, M={count}, N={n}"
        load = config.k * count / n
        # The sum of the overlaps is free of the order in which the patterns came out.
        difference = (unsupervised - supervised).sum(1)
        se = difference.std() / len(difference) ** 0.5
        slack = 3000 / config.n
        if load <= 0.1 and n == config.n:
            out.append(Check(f"unsupervised - supervised, {tag}", float(difference.mean()), 0.0,
                             float(2 * se), "abstract", note=NOISE))  # fmt: skip
        if n == config.n:
            gap = np.abs(supervised.mean(0) - part["theory"]).max()
            # Drawn patterns overlap: sorting makes a gap of order N^-1/2 out of a tie.
            out.append(close(f"supervised v theory, {tag}: largest gap", gap, 0,
                             0.035 * slack**0.5))  # fmt: skip
        if n == min(config.small) and load > 0.5:
            out.append(at_least(f"departure of the protocols at K M = {load:.2f} N",
                                np.abs(difference.mean()), 3 * se, "abstract"))  # fmt: skip
    references = known(REFERENCES, "examples", config)
    columns = [
        (name, [references[f"{name}, m_{mu}"] for mu in (1, 2)])
        for name in ("supervised", "theory")
    ]
    for name, (first, second) in columns:
        for count in first:
            site = theory.learned_entries(config.k, config.dilution, 0.2, count)
            rho = entropy(0.2, count)
            guess = theory.hierarchical(config.k, config.dilution)
            n_mu = theory.solve(site, config.beta, guess, rho=rho, iterations=3000)
            m = np.sort(theory.archetype(n_mu, site, config.beta, rho))[::-1]
            both = [first[count].value, second[count].value]
            gap = np.abs(m - np.sort(both)[::-1]).max()
            out.append(close(f"theory v earlier {name}, r=.2, M={count}: largest gap", gap, 0,
                             4 * first[count].error, first[count].source))  # fmt: skip
    return out


def draw(result: Result):
    """Overlap against M and against rho, and the departure."""
    figure, [axes] = plotting.panels(1, 3, width=3.8)
    config = result.config
    for i, r in enumerate(config.qualities):
        parts = [p for p in result.parts if float(p["quality"]) == r and int(p["n"]) == config.n]
        first = np.stack([part["overlap"][..., 0] for part in parts])
        expected = [part["theory"][0] for part in parts]
        for ax, name in ((axes[0], "examples"), (axes[1], "rho")):
            x = np.array([float(part[name]) for part in parts])
            for j, style in enumerate(("supervised", "unsupervised")):
                label = f"r={r}, {style}" if ax is axes[0] else None
                plotting.points(ax, x * (1 + 0.04 * j), first[:, j].mean(1), first[:, j].std(1),
                                index=2 * i + j, label=label)  # fmt: skip
            plotting.line(ax, x, expected, index=2 * i)
        axes[0].axvline((1 - r**2) / r**2, color=plotting.COLOURS[2 * i], ls=":", lw=1)
    rho = np.geomspace(0.05, 6, 100)
    plotting.line(axes[1], rho, theory.learned_overlap(config.dilution, rho), index=6,
                  label="one pattern, T=0", style="--")  # fmt: skip
    axes[0].set_xscale("log")
    axes[1].set_xscale("log")
    plotting.labels(axes[0], "examples M (dotted: rho = 1)", "largest overlap")
    plotting.labels(axes[1], "data-set entropy rho", "largest overlap")
    odd = [p for p in result.parts if float(p["quality"]) == 0.1 and int(p["n"]) in config.small]
    load = [config.k * int(part["examples"]) / int(part["n"]) for part in odd]
    for j, name in enumerate(("supervised", "unsupervised")):
        totals = [part["overlap"][j].sum(-1) for part in odd]
        spread = [total.std() / len(total) ** 0.5 for total in totals]
        plotting.points(axes[2], load, [t.mean() for t in totals], spread, index=j, label=name)
    axes[2].axvline(0.1, color="black", ls=":", lw=1)
    plotting.labels(axes[2], "K M / N at rho = 1, r = .1", "sum of overlaps")
    return figure


EXPERIMENT = Experiment(
    "multitask_hebbian.examples",
    "F4, F5: overlaps with the archetypes against the number of examples: with and without a "
    "teacher the same at low storage, all qualities on one curve in rho; apart once K M nears N.",
    Examples(),
    Examples(qualities=(0.2,), ratios=(1.0, 4.0), small=(200,), n=1500, seeds=12),
    measure,
    checks,
    draw,
    points=points,
    budget=15,
)
