"""Jackson's kernel: the positive summation that turns Lipschitz constants into a bound."""

import numpy as np
from jaxtyping import Float


def factors(degree: int) -> Float[np.ndarray, " orders"]:
    """rho_0 .. rho_degree: Fourier coefficients of the kernel, rho_0 = 1.

    The kernel is (sin(p t/2) / sin(t/2))^4 normalised, with p = degree/2 + 1.

    Raises:
        ValueError: the degree is odd or below 2.

    Example:
        >>> factors(2).round(4)
        array([1.    , 0.6667, 0.1667])
    """
    if degree < 2 or degree % 2:
        raise ValueError(f"degree must be even and at least 2, got {degree}")
    p = degree // 2 + 1
    fejer = p - np.abs(np.arange(-p + 1, p))
    square = np.convolve(fejer, fejer).astype(np.float64)
    return square[degree:] / square[degree]


def mean_distance(degree: int, grid: int, offsets: int = 64) -> float:
    """E|t| under the kernel sampled on `grid` midpoints of [0, pi], at the worst offset.

    The sampled weights sum to 1 exactly, so the quadrature of the coefficients is part of this
    number and needs no further term.

    Example:
        >>> round(mean_distance(2, 512), 3)
        0.722
    """
    k = np.arange(1, degree + 1)
    rho = factors(degree)[1:]
    # By symmetry and period the worst offset lies within half a cell.
    shift = np.linspace(0, np.pi / (2 * grid), offsets)
    t = shift[:, None] + np.pi * (np.arange(-grid, grid) + 0.5) / grid
    density = 1 + 2 * np.einsum("k,ktj->tj", rho, np.cos(k[:, None, None] * t))
    return float((density * np.abs(t)).sum(1).max() / (2 * grid))
