"""Patterns, examples and couplings; couplings are kept as factors, J_ij = A_i . A_j / N."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


def draw_patterns(
    rng: np.random.Generator, n: int, k: int, dilution: float, replicas: int = 1
) -> Float[np.ndarray, "spins replicas patterns"]:
    """Patterns with entries -1, 0, 1; an entry is 0 with probability `dilution`.

    Raises:
        ValueError: k < 1 or the dilution is outside [0, 1).

    Example:
        >>> draw_patterns(np.random.default_rng(0), 5, 2, 0.3).shape
        (5, 1, 2)
    """
    if k < 1:
        raise ValueError(f"there must be at least 1 pattern, got K = {k}")
    if not 0 <= dilution < 1:
        raise ValueError(f"dilution must be in [0, 1), got {dilution}")
    shape = (n, replicas, k)
    return rng.choice((-1.0, 1.0), shape) * (rng.random(shape) >= dilution)


def draw_examples(
    rng: np.random.Generator,
    patterns: Float[np.ndarray, "spins replicas patterns"],
    quality: float,
    examples: int,
) -> Float[np.ndarray, "spins replicas patterns examples"]:
    """Noisy copies: every entry is kept with probability (1 + quality) / 2, else flipped.

    Raises:
        ValueError: the quality is outside (0, 1] or there are no examples.

    Example:
        >>> xi = draw_patterns(np.random.default_rng(0), 5, 2, 0.3)
        >>> draw_examples(np.random.default_rng(0), xi, 0.5, 7).shape
        (5, 1, 2, 7)
    """
    check_examples(quality, examples)
    kept = rng.random((*patterns.shape, examples)) < (1 + quality) / 2
    return patterns[..., None] * np.where(kept, 1.0, -1.0)


def check_examples(quality: float, examples: int) -> None:
    """Refuses qualities and numbers of examples that make no sense.

    Raises:
        ValueError: the quality is outside (0, 1] or there are no examples.
    """
    if not 0 < quality <= 1:
        raise ValueError(f"quality must be in (0, 1], got {quality}")
    if examples < 1:
        raise ValueError(f"examples must be at least 1, got {examples}")


def entropy(quality: float, examples: int) -> float:
    """rho = (1 - r^2) / (M r^2), the data set's entropy.

    Example:
        >>> round(entropy(0.2, 24), 3)
        1.0
    """
    check_examples(quality, examples)
    return (1 - quality**2) / (examples * quality**2)


@dataclass(frozen=True)
class Network:
    """Replicas of a network, each with its own couplings J_ij = A_i . A_j / N, J_ii = 0.

    Attributes:
        factors: A.
    """

    factors: Float[np.ndarray, "spins replicas factors"]

    @classmethod
    def storing(cls, patterns: Float[np.ndarray, "spins replicas patterns"]) -> "Network":
        """J_ij = (1/N) sum_mu xi_i xi_j.

        Raises:
            ValueError: patterns have entries other than -1, 0, 1.
        """
        if not np.isin(patterns, (-1, 0, 1)).all():
            raise ValueError("patterns must have entries in {-1, 0, 1}")
        return cls(np.asarray(patterns, dtype=np.float64))

    @classmethod
    def supervised(
        cls, examples: Float[np.ndarray, "spins replicas patterns examples"], quality: float
    ) -> "Network":
        """J_ij = 1/(N r^2 (1+rho)) sum_mu mean_a eta_i mean_a eta_j."""
        rho = entropy(quality, examples.shape[-1])
        return cls(examples.mean(-1) / (quality * np.sqrt(1 + rho)))

    @classmethod
    def unsupervised(
        cls, examples: Float[np.ndarray, "spins replicas patterns examples"], quality: float
    ) -> "Network":
        """J_ij = 1/(N M r^2 (1+rho)) sum_mu sum_a eta_i eta_j.

        Warns:
            UserWarning: K M exceeds N/10, where the low-storage theory does not apply.
        """
        n, count = examples.shape[0], examples.shape[-1]
        if examples.shape[-2] * count > n / 10:
            warnings.warn(
                f"K M = {examples.shape[-2] * count} exceeds N/10 = {n / 10:g}: the low-storage "
                "theory does not apply",
                stacklevel=2,
            )
        rho = entropy(quality, count)
        scaled = examples / (quality * np.sqrt(count * (1 + rho)))
        return cls(scaled.reshape(n, examples.shape[1], -1))

    @property
    def spins(self) -> int:
        """N."""
        return self.factors.shape[0]

    def couplings(self, replica: int = 0) -> Float[np.ndarray, "spins spins"]:
        """J of one replica, written out; for small networks.

        Example:
            >>> float(Network.storing(np.ones((3, 1, 1))).couplings()[0, 1].round(3))
            0.333
        """
        a = self.factors[:, replica]
        j = a @ a.T / self.spins
        np.fill_diagonal(j, 0)
        return j

    def energy(self, spins: Float[np.ndarray, "spins replicas"]) -> Float[np.ndarray, " replicas"]:
        """H / N = -1/2 sum_{i != j} J_ij s_i s_j / N."""
        overlap = np.einsum("nrf,nr->rf", self.factors, spins) / self.spins
        own = np.square(self.factors).sum((0, 2)) / self.spins**2
        return -0.5 * (np.square(overlap).sum(1) - own)


def magnetisations(
    patterns: Float[np.ndarray, "spins replicas patterns"],
    spins: Float[np.ndarray, "spins replicas"],
) -> Float[np.ndarray, "replicas patterns"]:
    """m_mu = (1/N) sum_i xi_i s_i.

    Example:
        >>> xi = draw_patterns(np.random.default_rng(0), 50, 1, 0.0)
        >>> magnetisations(xi, xi[..., 0]).tolist()
        [[1.0]]
    """
    return np.einsum("nrk,nr->rk", patterns, spins) / len(spins)


def hierarchical_spins(
    rng: np.random.Generator, patterns: Float[np.ndarray, "spins replicas patterns"]
) -> Float[np.ndarray, "spins replicas"]:
    """The state that follows the first pattern, where it is blank the second, and so on.

    Example:
        >>> xi = np.array([[[1.0, -1.0]], [[0.0, -1.0]]])
        >>> hierarchical_spins(np.random.default_rng(0), xi).ravel().tolist()
        [1.0, -1.0]
    """
    spins = rng.choice((-1.0, 1.0), patterns.shape[:2])
    for mu in reversed(range(patterns.shape[-1])):
        spins = np.where(patterns[..., mu] != 0, patterns[..., mu], spins)
    return spins
