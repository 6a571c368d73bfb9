"""Laws of associative memory: numpy, float64.

Keys are random unit vectors in R^d, n of them; values are independent with unit variance.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import root_scalar
from scipy.special import erfc


def hebbian_error(n, d):
    """E|o - v|^2 / E|v|^2 of Hebbian recall.

    Example:
        >>> hebbian_error(17, 64)
        0.25
    """
    return (n - 1) / d


def bit_error(n, d):
    """Probability that the sign of one recalled bit is wrong, for Gaussian crosstalk.

    Example:
        >>> round(float(bit_error(64, 64)), 4)
        0.1567
    """
    return 0.5 * erfc(np.sqrt(d / (2 * (np.asarray(n, float) - 1))))


def average_capacity(tau: float, d):
    """How many pairs keep the average error at tau: 1 + tau d.

    Raises:
        ValueError: tau is not positive.

    Example:
        >>> average_capacity(0.25, 64)
        17.0
    """
    if tau <= 0:
        raise ValueError(f"tau must be a positive error, got {tau}")
    return 1 + tau * d


def faultless_capacity(bits: int, d: float) -> float:
    """How many pairs leave every bit of every value right with probability 1/2.

    About d / (2 log(bits n)): the bit errors of `bit_error`, taken as independent.

    Example:
        >>> round(faultless_capacity(32, 256))
        27
    """

    def excess(n: float) -> float:
        return float(bits * n * np.log1p(-bit_error(n, d)) - np.log(0.5))

    return float(root_scalar(excess, bracket=(1.001, d)).root)


def delta_floor(n, d):
    """Least-squares error of any linear memory: 0 up to n = d, then 1 - d/n."""
    return np.maximum(0.0, 1 - d / np.asarray(n, float))


def one_pass_error(n: int, d: int) -> float:
    """Mean relative error after one pass of the delta rule with beta = 1 over n random unit keys.

    Exact for isotropic keys and independent values of unit variance. A later write adds
    (k_i . k_j) (v_j - S^T k_j) to the error e_i; averaged over k_j, |e_i|^2, e_i . v_i and |S|^2
    follow a recursion over the writes.

    Example:
        >>> round(one_pass_error(16, 64), 4)
        0.1345
    """
    total = 0.0
    for first in range(1, n + 1):
        square, cross = 0.0, 0.0  # |e|^2 and e . v, in units of |v|^2
        for written in range(first, n):
            state = d * (1 - (1 - 1 / d) ** written)  # |S|^2
            recalled = 1 + 2 * cross + square
            square += 1 / d - 2 / d * (cross + square) + (2 * recalled + state) / (d * (d + 2))
            cross -= (1 + cross) / d
        total += square
    return total / n


def depth_error(n, d, layers, heads):
    """Relative error after a chain of linear read-outs with averaged heads.

    Example:
        >>> round(depth_error(32, 64, 4, 1), 2)
        3.85
    """
    return (1 + (n - 1) / (d * heads)) ** layers - 1


def reliability(p, heads, layers):
    """Probability that no layer loses all its heads, each failing with probability p.

    Example:
        >>> round(reliability(0.2, 4, 24), 4)
        0.9623
    """
    return (1 - p**heads) ** layers


def required_heads(layers: int, delta: float, p: float) -> float:
    """Heads that keep the chance of a lost layer below delta: log(layers/delta) / log(1/p)."""
    return float(np.log(layers / delta) / np.log(1 / p))


def acquisition(trials: Int[np.ndarray, " t"], rate: float) -> Float[np.ndarray, " t"]:
    """Strength after each of the paired trials: 1 - (1 - rate)^t."""
    return 1 - (1 - rate) ** trials


def critical_sharpness(n, d: int, iterations: int = 100):
    """Softmax sharpness B at which the stored pair gets half the weight: log(n-1) + B^2/2d = B.

    Example:
        >>> round(float(critical_sharpness(9, 10**9)), 3) == round(float(np.log(8)), 3)
        True
    """
    b = np.log(np.asarray(n, float) - 1)
    level = b.copy()
    for _ in range(iterations):
        b = level + b**2 / (2 * d)
    return b
