"""Chains that run until they are stationary, and say so."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .dynamics import glauber
from .model import Network

FIRST = 25  # sweeps of the first block
LEVEL = 2.0  # standard errors by which the energy may still move
MOVES = 5e-4  # and how far: a few replicas that leave their state make the error large


class Relaxed(NamedTuple):
    """Averages over the last block of a chain.

    Attributes:
        spins: the last.
        mean: of the spins.
        energy: mean of H / N in every replica.
        drift: change of the energy from the block before, its mean over replicas.
        error: the standard error of that change.
        sweeps: of the whole chain.
        stationary: whether the change was within the noise.
    """

    spins: Float[np.ndarray, "spins replicas"]
    mean: Float[np.ndarray, "spins replicas"]
    energy: Float[np.ndarray, " replicas"]
    drift: float
    error: float
    sweeps: int
    stationary: bool


def relax(
    rng: np.random.Generator,
    network: Network,
    spins: Float[np.ndarray, "spins replicas"],
    beta: float,
    *,
    sweeps: int = 1600,
) -> Relaxed:
    """Glauber dynamics in blocks that double, until the energy no longer moves.

    Each block is as long as all before it together. A chain is called stationary when, from one
    block to the next, the energy changes by no more than two standard errors of that change over
    the replicas (or by 10^-6), and by no more than 5 10^-4; no chain is shorter than four blocks.

    Args:
        rng: of the dynamics.
        network: the couplings; at least 2 replicas.
        spins: where to start.
        beta: inverse temperature.
        sweeps: at most; the block that would exceed them is not begun.

    Raises:
        ValueError: fewer than 2 replicas, or sweeps are below those of four blocks.

    Example:
        >>> from attn_theory.multitask_hebbian import draw_patterns
        >>> rng = np.random.default_rng(0)
        >>> xi = draw_patterns(rng, 100, 1, 0.0, 2)
        >>> relax(rng, Network.storing(xi), xi[..., 0], 5.0).stationary
        True
    """
    check_relaxation(spins.shape[1], sweeps)
    chain = glauber(rng, network, spins, beta, FIRST)
    total, before = FIRST, chain.energy.mean(0)
    while True:
        chain = glauber(rng, network, chain.spins, beta, total, averaged=total)
        total *= 2
        energy = chain.energy.mean(0)
        change = energy - before
        drift, error = float(change.mean()), float(change.std(ddof=1) / len(change) ** 0.5)
        stationary = abs(drift) <= min(max(LEVEL * error, 1e-6), MOVES)
        if (stationary and total >= 8 * FIRST) or 2 * total > sweeps:
            return Relaxed(chain.spins, chain.mean, energy, drift, error, total, stationary)
        before = energy


def check_relaxation(replicas: int, sweeps: int) -> None:
    """Refuses what cannot be told stationary.

    Raises:
        ValueError: fewer than 2 replicas, or fewer sweeps than four blocks have.
    """
    if replicas < 2:
        raise ValueError(f"chains need at least 2 replicas (seeds), got {replicas}")
    if sweeps < 8 * FIRST:
        raise ValueError(f"sweeps must be at least {8 * FIRST}, got {sweeps}")
