"""Boltzmann averages by enumeration of all states: small networks only."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .model import Network


class Averages(NamedTuple):
    """Exact averages of one network at one temperature; energies are extensive."""

    log_z: float
    mean_energy: float
    ground_energy: float
    overlap_products: Float[np.ndarray, "patterns patterns"]
    overlap_sizes: Float[np.ndarray, " patterns"]
    spin_products: Float[np.ndarray, "spins spins"]


def boltzmann(
    network: Network, patterns: Float[np.ndarray, "spins patterns"], beta: float
) -> Averages:
    """Averages over all 2^N states of the first replica.

    Args:
        network: the couplings.
        patterns: whose overlaps m are averaged: <m_a m_b> and <|m_a|>.
        beta: inverse temperature.

    Raises:
        ValueError: N > 20, or beta is negative.

    Example:
        >>> network = Network.storing(np.ones((2, 1, 1)))
        >>> round(boltzmann(network, np.ones((2, 1)), 0.0).log_z, 3)
        1.386
    """
    n = network.spins
    if n > 20:
        raise ValueError(f"enumeration is for N up to 20, got {n}; use Monte Carlo")
    if beta < 0:
        raise ValueError(f"beta must be at least 0, got {beta}")
    states = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    energy = -0.5 * np.einsum("si,ij,sj->s", states, network.couplings(), states, optimize=True)
    exponent = -beta * energy
    top = exponent.max()
    weight = np.exp(exponent - top)
    total = weight.sum()
    weight /= total
    m = states @ patterns / n
    return Averages(
        float(top + np.log(total)),
        float(weight @ energy),
        float(energy.min()),
        m.T @ (weight[:, None] * m),
        weight @ np.abs(m),
        states.T @ (weight[:, None] * states),
    )
