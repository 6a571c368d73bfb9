"""F4, F5: learning from examples, with and without a teacher."""

import warnings
from dataclasses import dataclass

import numpy as np

from ... import montecarlo, plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Experiment, Result, at_least, at_most, close
from ...references import known
from ...seeds import numpy_generator
from ...tables import Tidy
from .. import theory
from ..model import (
    Network,
    draw_examples,
    draw_patterns,
    entropy,
    hierarchical_spins,
    magnetisations,
)
from ..references import REFERENCES
from ..relaxation import relax
from .simulate import Chains, diagnostic, squares_against_limit, still_drifting

# Mean of unsupervised - supervised, and its band over streams.
PROTOCOLS_DIFFER = {(0.1, 20): (-0.18, 0.09), (0.2, 5): (-0.19, 0.06)}
BELOW = (
    "below the learning threshold the network without a teacher leaves the archetypes for its "
    "examples, whose energy is lower"
)
PROTOCOLS = ("supervised", "unsupervised")
STARTS = ("archetypes", "an example", "random spins")


@dataclass(frozen=True, kw_only=True)
class Examples(Chains):
    """Qualities and examples, in network sizes; seeds are replicas.

    Attributes:
        qualities: r; for each, numbers of examples around (1 - r^2) / r^2.
        ratios: numbers of examples in units of that threshold.
        n: spins.
        sizes: more network sizes for r = .2 and a fifth of the threshold, where protocols part.
        small: network sizes at which K M comes close to N, at r = .1 and the threshold.
    """

    seeds: int = 10
    qualities: tuple[float, ...] = (0.1, 0.2, 0.4)
    ratios: tuple[float, ...] = (0.2, 1.0, 4.0, 16.0)
    n: int = 3000
    sizes: tuple[int, ...] = (6000, 12_000)
    small: tuple[int, ...] = (200, 400, 1000, 2000)
    k: int = 2
    dilution: float = 0.3
    beta: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        for quality, count, _ in points(self):
            theory.kept_signs(self.k, quality, count)  # refuses what the theory cannot sum


def points(config: Examples) -> list[tuple[float, int, int]]:
    """Quality, examples and size."""
    grid = []
    for r in config.qualities:
        threshold = (1 - r**2) / r**2
        counts = [max(1, round(ratio * threshold)) for ratio in config.ratios]
        # More examples than spins would be another regime, and gigabytes.
        grid += [(r, count, config.n) for count in counts if config.k * count <= config.n]
    threshold = round((1 - 0.1**2) / 0.1**2)
    grid += [(0.2, 5, n) for n in config.sizes]
    return [*grid, *((0.1, threshold, n) for n in config.small)]


def measure(config: Examples, point: tuple[float, int, int]) -> Arrays:
    """Both protocols on the same examples, relaxed from several starts, and theory."""
    quality, count, n = point
    rng = numpy_generator(config.stream, f"examples {point}")
    # Small networks fluctuate more and cost less.
    replicas = config.seeds * max(1, 2000 // n)
    patterns = draw_patterns(rng, n, config.k, config.dilution, replicas)
    shown = draw_examples(rng, patterns, quality, count)
    noise = rng.choice((-1.0, 1.0), (n, replicas))
    example = np.where(shown[:, :, 0, 0] == 0, noise, shown[:, :, 0, 0])
    starts = (hierarchical_spins(rng, patterns), example, noise)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # leaving the low-storage regime is the point
        networks = (Network.supervised(shown, quality), Network.unsupervised(shown, quality))
    overlap, nearest, runs, last = [], [], [], []
    for network in networks:
        for start in starts:
            run = relax(rng, network, start, config.beta, sweeps=config.sweeps)
            overlap.append(magnetisations(patterns, run.mean))
            nearest.append(np.abs(np.einsum("nrka,nr->rka", shown, run.mean) / n).max((1, 2)))
            runs.append(diagnostic(run))
            last.append(run.spins)
    shape = (len(networks), len(starts))
    return {
        "quality": quality,
        "examples": count,
        "n": n,
        "rho": entropy(quality, count),
        "overlap": np.array(overlap).reshape(*shape, replicas, config.k),
        "nearest_example": np.array(nearest).reshape(*shape, replicas),
        # Of the network without a teacher, in the state that the teacher's network settled in.
        "taught_energy": networks[1].energy(last[0]),
        "theory": solution(config, quality, count),
    } | {name: np.array([run[name] for run in runs]).reshape(*shape, *np.shape(runs[0][name]))
         for name in runs[0]}  # fmt: skip


def solution(config: Examples, quality: float, count: int) -> np.ndarray:
    """The theory's overlaps with the archetypes."""
    rho = entropy(quality, count)
    site = theory.learned_entries(config.k, config.dilution, quality, count)
    guess = theory.hierarchical(config.k, config.dilution)
    n_mu = theory.solve(site, config.beta, guess, rho=rho, iterations=3000)
    return theory.archetype(n_mu, site, config.beta, rho)


def totals(part: Arrays) -> np.ndarray:
    """Sum of |m| over the patterns, (protocols, starts, replicas)."""
    return np.abs(part["overlap"]).sum(-1)


def checks(result: Result) -> list[Check]:
    """Stationarity, theory, the two protocols at low storage and at high, their branches."""
    config, low, high = result.config, [], []
    for part in result.parts:
        crowded = config.k * int(part["examples"]) > 0.2 * int(part["n"])
        (high if crowded else low).append(part)
    out = [still_drifting(np.concatenate([part["stationary"].ravel() for part in low]))]
    if high:
        # With K M of the order of N chains age as a spin glass: how far they still move is told.
        moves = [np.abs(part["drift"] / part["energy"].mean(-1)).max() for part in high]
        out.append(at_most("relative drift of the energy in the last doubling, K M > N/5",
                           max(moves), 0.01, "chosen"))  # fmt: skip
    for part in result.parts:
        r, count, n = float(part["quality"]), int(part["examples"]), int(part["n"])
        tag, load = f"r={r}, M={count}, N={n}", config.k * count / n
        supervised, unsupervised = totals(part)
        difference = unsupervised[0] - supervised[0]
        se = float(montecarlo.standard_error(difference))
        if n == config.n:
            name = f"supervised v theory, {tag}"
            out.append(squares_against_limit(name, part["overlap"][0, 0], part["theory"], n))
        if load <= 0.1 and n >= config.n:
            # Without a teacher couplings carry noise, whose share is K M / N.
            claim = close(f"unsupervised - supervised, {tag}", difference.mean(), 0, 2 * se + load,
                          "abstract")  # fmt: skip
            differ = PROTOCOLS_DIFFER.get((r, count))
            if differ is not None:
                claim = claim.deviates(*differ, BELOW)
            out.append(claim)
            for j, protocol in enumerate(PROTOCOLS):
                gaps = part["energy"][j, 1:] - part["energy"][j, :1]
                error = float(montecarlo.standard_error(gaps.T).max())
                gap = np.abs(gaps.mean(1)).max()
                same = close(f"energy from three starts, {protocol}, {tag}: largest gap", gap,
                             0, 3 * error + 1e-4)  # fmt: skip
                out.append(same)
        if load <= 0.1 and part["rho"] > 2 and count > 1 and n >= config.n:
            fall = part["energy"][1, 0] - part["taught_energy"]
            highest = fall.mean() + 2 * float(montecarlo.standard_error(fall))
            out.append(at_most(f"energy without a teacher, where it settles - where a teacher's "
                               f"network does, {tag}", highest, 0, "measured"))  # fmt: skip
        if n == min(config.small) and load > 0.5:
            out.append(at_least(f"departure of the protocols at K M = {load:.2f} N",
                                np.abs(difference.mean()), 3 * se, "abstract"))  # fmt: skip
    if (config.k, config.dilution, config.beta) == (2, 0.3, 10.0):
        out += collapse_checks(config)
    references = known(REFERENCES, "examples", config)
    columns = [
        (name, [references[f"{name}, m_{mu}"] for mu in (1, 2)])
        for name in ("supervised", "theory")
    ]
    for name, (first, second) in columns:
        for count in first:
            m = np.sort(solution(config, 0.2, count))[::-1]
            both = [first[count].value, second[count].value]
            gap = np.abs(m - np.sort(both)[::-1]).max()
            out.append(close(f"theory v earlier {name}, r=.2, M={count}: largest gap", gap, 0,
                             4 * first[count].error, first[count].source))  # fmt: skip
    return out


def at_threshold(config: Examples, count: int) -> float:
    """The theory's largest overlap with examples whose quality makes rho exactly 1."""
    return float(np.abs(solution(config, (count + 1) ** -0.5, count)).max())


def collapse_checks(config: Examples) -> list[Check]:
    """At rho = 1 the number of examples matters as long as it is small.

    The noise of many examples is Gaussian, of which rho is the variance: one curve in rho. That of
    a few is not.
    """
    many, *few = (at_threshold(config, count) for count in (99, 24, 8, 3))
    name = "largest overlap at rho = 1, theory: M={} - M=99"
    out = [close(name.format(24), few[0] - many, 0, 0.003, "recalled")]
    for count, overlap, gap in ((8, few[1], 0.0058), (3, few[2], 0.0654)):
        claim = close(name.format(count), overlap - many, 0, 0.003, "recalled")
        out.append(claim.deviates(gap, 5e-4, "the noise of so few examples is not Gaussian"))
    return out


def draw(result: Result):
    """Overlap against M and against rho, the departure, and the energies of the branches."""
    figure, [axes] = plotting.panels(1, 4, width=3.6)
    config = result.config
    for i, r in enumerate(config.qualities):
        parts = [p for p in result.parts if float(p["quality"]) == r and int(p["n"]) == config.n]
        largest = np.stack([np.abs(part["overlap"][:, 0]).max(-1) for part in parts])
        expected = [part["theory"].max() for part in parts]
        rho = np.array([float(part["rho"]) for part in parts])
        for ax, name in ((axes[0], "examples"), (axes[1], "rho")):
            x = np.array([float(part[name]) for part in parts])
            for j, protocol in enumerate(PROTOCOLS):
                label = f"$r={r}$, {protocol}" if ax is axes[0] else None
                plotting.means(ax, x * (1 + 0.04 * j), largest[:, j], index=2 * i + j, label=label)
            plotting.line(ax, x, expected, index=2 * i)
        axes[0].axvline((1 - r**2) / r**2, color=plotting.COLORS[2 * i], ls=":", lw=1)
        fall = np.stack([part["energy"][1, 0] - part["taught_energy"] for part in parts])
        plotting.means(axes[3], rho, fall, index=2 * i, label=f"$r={r}$")
    rho = np.geomspace(0.05, 6, 100)
    plotting.line(axes[1], rho, theory.learned_overlap(config.dilution, rho), index=6,
                  label="one pattern, $T=0$", style="--")  # fmt: skip
    few = [np.abs(solution(config, (3 * x + 1) ** -0.5, 3)).max() for x in rho[::4]]
    plotting.line(axes[1], rho[::4], few, index=7, label="3 examples", style=":")
    for ax in (axes[0], axes[1], axes[3]):
        ax.set_xscale("log")
    plotting.labels(
        axes[0], r"examples $M$ (dotted: $\rho = 1$)", "largest $|m|$ (from the archetypes)",
        legend=False,
    )  # fmt: skip
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    plotting.labels(axes[1], r"data-set entropy $\rho$", "largest $|m|$ (from the archetypes)")
    odd = [p for p in result.parts if float(p["quality"]) == 0.1 and int(p["n"]) in config.small]
    load = [config.k * int(part["examples"]) / int(part["n"]) for part in odd]
    for j, name in enumerate(PROTOCOLS):
        values = [totals(part)[j, 0] for part in odd]
        errors = [montecarlo.standard_error(value) for value in values]
        plotting.points(axes[2], load, [v.mean() for v in values], errors, index=j, label=name)
    axes[2].axvline(0.1, color="black", ls=":", lw=1)
    plotting.labels(axes[2], r"$K M / N$ at $\rho = 1$, $r = .1$", "sum of $|m|$")
    axes[3].axhline(0, color="black", lw=0.7)
    plotting.labels(axes[3], r"data-set entropy $\rho$",
                    "$H/N$: own - taught state")  # fmt: skip
    return figure


EXPERIMENT = Experiment(
    entry("multitask_hebbian.examples"),
    Examples(),
    Examples(qualities=(0.2,), ratios=(1.0, 4.0), sizes=(), small=(200,), n=1000, seeds=6),
    measure,
    checks,
    draw,
    Tidy(
        {
            "quality": "",
            "examples": "",
            "n": "",
            "rho": "",
            "theory": "pattern",
            "overlap": "protocol start seed pattern",
            "nearest_example": "protocol start seed",
            "energy": "protocol start seed",
            "sweeps": "protocol start",
            "stationary": "protocol start",
        },
        {
            "protocol": ("supervised", "unsupervised"),
            "start": ("archetypes", "example", "random"),
        },
    ),
    work=lambda c: c.seeds * c.k * sum(count * n for _, count, n in points(c)),
    points=points,
    revision=4,
)
