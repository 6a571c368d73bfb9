"""Averages that carry their standard errors."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float


def standard_error(samples: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "..."]:
    """Standard error of the mean over the first axis.

    Raises:
        ValueError: fewer than two samples have no error.

    Example:
        >>> import numpy as np
        >>> float(standard_error(np.array([1.0, 3.0])))
        1.0
    """
    if len(samples) < 2:
        raise ValueError(f"a standard error needs at least 2 samples, got {len(samples)}")
    return np.asarray(samples.std(0, ddof=1) / np.sqrt(len(samples)))


def average(
    draw: Callable[[int], Float[np.ndarray, "n ..."]], samples: int, batch: int
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Mean and standard error of `samples` draws, taken `batch` at a time in constant memory.

    Args:
        draw: given a number n, returns n independent samples along the first axis.
        samples: how many in all.
        batch: how many at a time.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> mean, error = average(lambda n: rng.normal(size=n), 10_000, 1_000)
        >>> bool(abs(mean) < 4 * error)
        True
    """
    if samples < 2:
        raise ValueError(f"a standard error needs at least 2 samples, got {samples}")
    count, mean, spread = 0, 0.0, 0.0
    while count < samples:
        x = np.asarray(draw(min(batch, samples - count)), dtype=np.float64)
        n, m = len(x), x.mean(0)
        delta = m - mean
        spread = spread + ((x - m) ** 2).sum(0) + delta**2 * (count * n / (count + n))
        mean = mean + delta * (n / (count + n))
        count += n
    return np.asarray(mean), np.asarray(np.sqrt(spread / (count - 1) / count))
