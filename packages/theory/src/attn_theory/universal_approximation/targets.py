"""Functions to approximate, with their Lipschitz constants."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "points tokens"]

LIPSCHITZ = ((1.0, 1.0), (1.0, 2.0))


def kinked(x: Points) -> Points:
    """f1 = |x1 - x2|, f2 = max(x1, x2^2); constants `LIPSCHITZ`.

    Example:
        >>> kinked(np.array([[1.0, 0.5]]))
        array([[0.5, 1. ]])
    """
    return np.stack((np.abs(x[:, 0] - x[:, 1]), np.maximum(x[:, 0], x[:, 1] ** 2)), 1)


def smooth(x: Points) -> Points:
    """f1 = f2 = cos(pi x1) x2; constants pi and 1 along the two axes."""
    value = np.cos(np.pi * x[:, 0]) * x[:, 1]
    return np.stack((value, value), 1)


def times_the_mean(x: Points) -> Points:
    """f_i = x_i mean(X), which permutes with its inputs.

    Example:
        >>> times_the_mean(np.array([[1.0, 0.0]]))
        array([[0.5, 0. ]])
    """
    return x * x.mean(1, keepdims=True)


def convex_pieces(rng: np.random.Generator) -> tuple[Callable[[Points], Points], list[list[float]]]:
    """Two maxima of four affine pieces with slopes in [-1, 1], and their constants.

    Example:
        >>> f, constants = convex_pieces(np.random.default_rng(0))
        >>> f(np.zeros((3, 2))).shape, len(constants)
        ((3, 2), 2)
    """
    slopes, shifts = rng.uniform(-1, 1, (2, 4, 2)), rng.uniform(-1, 1, (2, 4))

    def f(x: Points) -> Points:
        return (np.einsum("opk,nk->nop", slopes, x) + shifts).max(-1)

    return f, np.abs(slopes).max(1).tolist()


def position_bound(f: Callable[[Points], Points], x: Points) -> float:
    """Least sup error of any permutation-equivariant map for two tokens: sup |f(PX) - P f(X)| / 2.

    Example:
        >>> position_bound(kinked, np.array([[1.0, 1.0]]))
        0.5
    """
    return float(np.abs(f(x[:, ::-1]) - f(x)[:, ::-1]).max() / 2)
