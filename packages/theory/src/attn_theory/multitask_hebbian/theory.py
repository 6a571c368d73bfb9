"""Self-consistency of the order parameters: numpy, float64, exact sums over pattern entries."""

from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import erf
from scipy.stats import binom

MOST_PATTERNS = 12
MOST_STATES = 1_000_000


class Entries(NamedTuple):
    """All values that a site's entries can take, with probabilities.

    `seen` are the entries as the network has learned them, equal to `true` where it was told them.
    """

    true: Float[np.ndarray, "states patterns"]
    seen: Float[np.ndarray, "states patterns"]
    weight: Float[np.ndarray, " states"]


def entries(k: int, dilution: float) -> Entries:
    """The 3^K states of one site.

    Raises:
        ValueError: K is outside [1, 12].

    Example:
        >>> float(entries(2, 0.5).weight.sum())
        1.0
    """
    if k < 1:
        raise ValueError(f"there must be at least 1 pattern, got K = {k}")
    if k > MOST_PATTERNS:
        raise ValueError(f"the exact sum has 3^{k} terms, above 3^12: use Monte Carlo expectation")
    states = np.array(list(product((-1.0, 0.0, 1.0), repeat=k)))
    weight = np.where(states == 0, dilution, (1 - dilution) / 2).prod(1)
    return Entries(states, states, weight)


def kept_signs(
    k: int, quality: float, examples: int
) -> tuple[Float[np.ndarray, " values"], Float[np.ndarray, " values"]]:
    """Values of chibar / r, the mean sign of an entry's examples, and their probabilities.

    The number of examples that keep the sign is binomial, of which outcomes rarer than 1e-9 are
    left out. Where K patterns would then make more than a million states a Gaussian takes its
    place, by up to 41 Gauss-Hermite nodes: too few for temperatures far below 0.1.

    Raises:
        ValueError: more than a million states even with 15 nodes, as from K = 5 on.

    Example:
        >>> kept_signs(1, 0.5, 1)[1].round(9).tolist()
        [0.25, 0.75]
    """
    kept = np.arange(examples + 1)
    chance = binom.pmf(kept, examples, (1 + quality) / 2)
    kept, chance = kept[chance > 1e-9], chance[chance > 1e-9]
    ratio = (2 * kept / examples - 1) / quality
    most = int(MOST_STATES ** (1 / k) - 1) // 2
    if len(kept) > most:
        if most < 15:
            raise ValueError(
                f"the exact sum over {k} patterns of {examples} examples has more than "
                f"{MOST_STATES} terms: use Monte Carlo expectation"
            )
        nodes, chance = np.polynomial.hermite_e.hermegauss(min(41, most))
        ratio = 1 + np.sqrt((1 - quality**2) / examples) / quality * nodes
    return ratio, chance / chance.sum()


def learned_entries(k: int, dilution: float, quality: float, examples: int) -> Entries:
    """Entries with what the examples say of them, xi (chibar / r).

    Raises:
        ValueError: more than a million states.

    Example:
        >>> bool(np.isclose(learned_entries(1, 0.3, 0.2, 5).weight.sum(), 1))
        True
    """
    ratio, chance = kept_signs(k, quality, examples)
    true = np.concatenate(([0.0], np.ones_like(ratio), -np.ones_like(ratio)))
    seen = np.concatenate(([0.0], ratio, -ratio))
    single = np.concatenate(([dilution], chance * (1 - dilution) / 2, chance * (1 - dilution) / 2))
    grids = [
        np.stack(np.meshgrid(*[x] * k, indexing="ij"), -1).reshape(-1, k) for x in (true, seen)
    ]
    weight = np.stack(np.meshgrid(*[single] * k, indexing="ij"), -1).reshape(-1, k).prod(1)
    return Entries(grids[0], grids[1], weight)


def response(
    m: Float[np.ndarray, "*grid patterns"], site: Entries, beta, rho: float = 0.0
) -> Float[np.ndarray, "*grid states"]:
    """tanh(beta m . xi / (1+rho)) of every state; the sign, 0 at 0, for infinite beta."""
    field = m @ site.seen.T
    beta = np.asarray(beta)[..., None]
    if np.isinf(beta).all():
        return np.where(np.abs(field) < 1e-13, 0.0, np.sign(field))
    return np.tanh(beta / (1 + rho) * field)


def solve(
    site: Entries,
    beta,
    start: Float[np.ndarray, "*grid patterns"],
    *,
    rho: float = 0.0,
    iterations: int = 20_000,
    tolerance: float = 1e-12,
) -> Float[np.ndarray, "*grid patterns"]:
    """n_mu = E[seen_mu tanh(beta/(1+rho) n . seen)] by damped iteration, a whole grid at once.

    Args:
        site: the entries; their mean is E.
        beta: inverse temperature, a number or one per grid point; np.inf for T = 0.
        start: first guess.
        rho: data-set entropy.
        iterations: at most.
        tolerance: on the change of every component.

    Raises:
        ValueError: beta is negative.

    Example:
        >>> solve(entries(2, 0.5), np.inf, np.array([0.5, 0.3])).round(6).tolist()
        [0.5, 0.25]
    """
    if np.any(np.asarray(beta) < 0):
        raise ValueError(f"beta must be at least 0, got {beta}")
    m = np.asarray(start, dtype=np.float64)
    weighted = site.weight[:, None] * site.seen
    for _ in range(iterations):
        new = 0.5 * m + 0.5 * response(m, site, beta, rho) @ weighted
        change, m = np.abs(new - m).max(), new
        if change < tolerance:
            break
    return m


def archetype(
    n: Float[np.ndarray, "*grid patterns"], site: Entries, beta, rho: float
) -> Float[np.ndarray, "*grid patterns"]:
    """m_mu = E[xi_mu tanh(..)] in the field of the solution n.

    Example:
        >>> site = entries(1, 0.5)
        >>> archetype(np.array([0.5]), site, np.inf, 0.0).tolist()
        [0.5]
    """
    return response(n, site, beta, rho) @ (site.weight[:, None] * site.true)


def free_energy(m: Float[np.ndarray, "*grid patterns"], site: Entries, beta: float):
    """|m|^2/2 - E log(2 cosh(beta m . xi)) / beta; the energy for infinite beta."""
    size = np.abs(m @ site.seen.T)
    if np.isinf(beta):
        inner = size
    else:
        inner = size + np.log1p(np.exp(-2 * beta * size)) / beta
    return 0.5 * np.square(m).sum(-1) - inner @ site.weight


def branches(
    k: int, dilution: float, beta: float, seed: int = 0
) -> list[tuple[float, Float[np.ndarray, " patterns"]]]:
    """All solutions found from hierarchical, symmetric and random starts, lowest free energy first.

    Example:
        >>> branches(3, 0.3, np.inf)[0][1].round(3).tolist()
        [0.7, 0.21, 0.063]
    """
    rng = np.random.default_rng(seed)
    site = entries(k, dilution)
    starts = [hierarchical(k, dilution), np.full(k, 0.5) + 1e-3 * rng.random(k)]
    starts += [rng.random(k) for _ in range(4)]
    found: list[tuple[float, np.ndarray]] = []
    for start in starts:
        m = np.sort(np.abs(solve(site, beta, start)))[::-1]
        if not any(np.abs(m - other).max() < 1e-6 for _, other in found):
            found.append((float(free_energy(m, site, beta)), m))
    return sorted(found, key=lambda pair: pair[0])


def hierarchical(k: int, dilution: float) -> Float[np.ndarray, " patterns"]:
    """m_k = (1-d) d^(k-1), the T = 0 state in which every pattern takes what the former left.

    Example:
        >>> hierarchical(2, 0.5).tolist()
        [0.5, 0.25]
    """
    return (1 - dilution) * dilution ** np.arange(k)


def symmetric_mixture(k: int, dilution: float) -> float:
    """E[xi^1 sign(sum xi)], sign(0) = 0: the amplitude of the T = 0 mixture of all patterns.

    Example:
        >>> round(symmetric_mixture(3, 0.5), 4)
        0.3125
    """
    site = entries(k, dilution)
    return float((site.weight * site.true[:, 0]) @ np.sign(site.true.sum(1)))


def critical_dilution(k: int, tolerance: float = 1e-9) -> float:
    """The dilution above which one step of the T = 0 map leaves the hierarchical state.

    Found by bisection on the map, not from the polynomial 1 - 2d + d^K.

    Example:
        >>> round(critical_dilution(3), 5)
        0.61803
    """
    low, high = 0.3, 0.999
    while high - low > tolerance:
        d = 0.5 * (low + high)
        site, m = entries(k, d), hierarchical(k, d)
        new = response(m, site, np.inf) @ (site.weight[:, None] * site.seen)
        low, high = (d, high) if np.abs(new - m).max() < 1e-12 else (low, d)
    return 0.5 * (low + high)


def critical_temperature(k: int, dilution: float, step: float = 1e-4) -> float:
    """T at which the map's slope at m = 0 is 1, by bisection with a finite difference.

    Example:
        >>> round(critical_temperature(3, 0.3), 4)
        0.7
    """
    site = entries(k, dilution)
    weighted = site.weight[:, None] * site.seen
    low, high = 0.02, 2.0
    while high - low > 1e-7:
        t = 0.5 * (low + high)
        slopes = np.stack([response(step * e, site, 1 / t) @ weighted / step for e in np.eye(k)])
        largest = np.linalg.eigvalsh(0.5 * (slopes + slopes.T)).max()
        low, high = (t, high) if largest > 1 else (low, t)
    return 0.5 * (low + high)


def learned_overlap(dilution: float, rho):
    """m of one pattern at T = 0: (1-d) erf(1 / sqrt(2 rho)).

    Example:
        >>> round(float(learned_overlap(0.0, 1.0)), 3)
        0.683
    """
    return (1 - dilution) * erf(1 / np.sqrt(2 * np.asarray(rho)))


def losses(
    patterns: Float[np.ndarray, "spins replicas patterns"],
    spins: Float[np.ndarray, "spins replicas"],
) -> tuple[Float[np.ndarray, "replicas patterns"], Float[np.ndarray, "replicas patterns"]]:
    """L^-+ = |xi -+ s|^2 / 2N of every pattern."""
    minus, plus = (0.5 * np.square(patterns - sign * spins[..., None]).mean(0) for sign in (1, -1))
    return minus, plus
