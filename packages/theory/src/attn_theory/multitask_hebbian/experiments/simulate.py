"""Monte Carlo runs that several experiments share."""

import numpy as np
from jaxtyping import Float

from ...seeds import numpy_generator
from ..dynamics import glauber
from ..model import Network, draw_patterns, hierarchical_spins, magnetisations


def stored_overlaps(
    purpose: str,
    *,
    stream: int,
    n: int,
    k: int,
    dilution: float,
    beta: float,
    replicas: int,
    sweeps: int,
    averaged: int,
) -> tuple[Float[np.ndarray, "replicas patterns"], Float[np.ndarray, "spins replicas patterns"]]:
    """Overlaps of replicas with their own patterns, from the hierarchical state, and the patterns.

    Args:
        purpose, stream: name the random numbers.
        n, k, dilution, beta: the network.
        replicas: each with patterns of its own.
        sweeps, averaged: of the dynamics; overlaps are means over the averaged last sweeps.
    """
    rng = numpy_generator(stream, purpose)
    patterns = draw_patterns(rng, n, k, dilution, replicas)
    start = hierarchical_spins(rng, patterns)
    _, mean = glauber(rng, Network.storing(patterns), start, beta, sweeps, averaged=averaged)
    return magnetisations(patterns, mean), patterns


def finite_solution(
    patterns: Float[np.ndarray, "spins replicas patterns"],
    beta: float,
    start: Float[np.ndarray, "replicas patterns"],
    iterations: int = 400,
) -> Float[np.ndarray, "replicas patterns"]:
    """Self-consistency with the sample mean over the drawn sites in place of the expectation."""
    m = start.copy()
    for _ in range(iterations):
        answer = np.tanh(beta * np.einsum("nrk,rk->nr", patterns, m))
        new = 0.5 * m + 0.5 * np.einsum("nrk,nr->rk", patterns, answer) / len(patterns)
        change, m = np.abs(new - m).max(), new
        if change < 1e-10:
            break
    return m
