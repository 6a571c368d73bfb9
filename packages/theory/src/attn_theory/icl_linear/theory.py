"""Closed forms for in-context linear regression: numpy, float64.

d is the dimension, n the context length, s2 the noise variance; beta ~ N(0, I/d), x ~ N(0, I)
unless said otherwise. Risks include the noise of the query's label.
"""

import numpy as np
from jaxtyping import Float, Int


def gd_risk(eta, d: int, n, s2: float):
    """Risk of one gradient step, (eta/n) sum_l y_l <x_l, x_q>.

    Example:
        >>> round(gd_risk(0.897, 5, 40, 0.1), 4)
        0.2414
    """
    return 1 + s2 - 2 * eta + eta**2 * (1 + (d + 1 + s2 * d) / n)


def gd_step(d: int, n: int, s2: float) -> float:
    """The best step of `gd_risk`; the risk there is 1 + s2 minus it."""
    return 1 / (1 + (d + 1 + s2 * d) / n)


def dgd_risk(eta, d: int, n, s2: float):
    """Risk of the debiased step, (eta/n) sum_l y_l <x_l - mean x, x_q>.

    Example:
        >>> round(dgd_risk(0.897, 5, 40, 0.1), 4)
        0.2432
    """
    return 1 + s2 - 2 * eta * (n - 1) / n + eta**2 * (n - 1) * (n + d + s2 * d) / n**2


def dgd_step(d: int, n: int, s2: float) -> float:
    """The best step of `dgd_risk`."""
    return n / (n + d + s2 * d)


def linear_attention_risk(eta, d: int, n, tuned: int, s2: float):
    """Risk at length n of unnormalised linear attention whose step was set at length `tuned`."""
    r = n / tuned
    return 1 + s2 - 2 * eta * r + (eta * r) ** 2 * (1 + (d + 1 + s2 * d) / n)


def approximate_loss(
    mu: Float[np.ndarray, " heads"], omega: Float[np.ndarray, " heads"], d: int, n: int, s2: float
) -> float:
    """The loss of heads with KQ_h = omega_h I and OV_h = mu_h, for large d and n.

    Source: He et al., 2025, arXiv 2503.12734 (the loss in the authors' code).
    """
    spread = np.outer(omega, omega) + (1 + s2) / n * np.exp(d * np.outer(omega, omega))
    return float(1 + s2 - 2 * mu @ omega + mu @ spread @ mu)


def flow(
    mu: Float[np.ndarray, "runs heads"],
    omega: Float[np.ndarray, "runs heads"],
    d: int,
    n: int,
    s2: float,
    *,
    step: float,
    steps: int,
    record: Int[np.ndarray, " times"],
) -> tuple[Float[np.ndarray, "times runs heads"], Float[np.ndarray, "times runs heads"]]:
    """Gradient flow on half of `approximate_loss` by Euler steps, many runs at once.

    Args:
        mu: where each run starts.
        omega: the same, of the query-key strengths.
        d: features of a covariate.
        n: points in a prompt.
        s2: variance of the noise.
        step: of Euler's method.
        steps: how many.
        record: step numbers, increasing, at which (mu, omega) are kept.
    """
    mu, omega, kept = mu.copy(), omega.copy(), []
    wanted = set(int(t) for t in record)
    for t in range(steps + 1):
        if t in wanted:
            kept.append((mu.copy(), omega.copy()))
        growth = (1 + s2) / n * np.exp(d * omega[:, :, None] * omega[:, None, :])
        aligned = (mu * omega).sum(-1, keepdims=True)
        through = np.einsum("rij,rj->ri", growth, mu)
        coupled = np.einsum("rij,rj->ri", growth, mu * omega)
        d_mu = -omega + aligned * omega + through
        d_omega = -mu + aligned * mu + d * mu * coupled
        mu, omega = mu - step * d_mu, omega - step * d_omega
    return np.stack([m for m, _ in kept]), np.stack([o for _, o in kept])


def pair_loss(m, g, d: int, n: int, s2: float):
    """`approximate_loss` of the pair omega = (g, -g), mu = (m, -m)."""
    return 1 + s2 - 4 * m * g + 4 * (m * g) ** 2 + 4 * (1 + s2) / n * m**2 * np.sinh(d * g**2)


def pair_value(g, d: int, n: int, s2: float):
    """The m that minimises `pair_loss` at g.

    Example:
        >>> float(pair_loss(pair_value(1e-3, 5, 40, 0.1), 1e-3, 5, 40, 0.1).round(5))
        0.22088
    """
    return g / (2 * g**2 + 2 * (1 + s2) / n * np.sinh(d * g**2))


def drift(t: float | Float[np.ndarray, "..."], d: int, n: int, s2: float):
    """Where the pair (g, -g) stands late in the flow, g = (4 kappa d^2 t)^(-1/6).

    Along the valley m = m*(g) the loss is 1 + s2 - 1/(1 + kappa (1 + d^2 g^4 / 6)) for small g,
    kappa = (1 + s2) d / n, and m g stays the same, so that g' = -(2/3) kappa d^2 g^7.

    Args:
        t: time of the flow, Euler's step times their number.
        d: features of a covariate.
        n: points in a prompt.
        s2: variance of the noise.

    Example:
        >>> round(drift(2000.0, 5, 40, 0.1), 4)
        0.182
    """
    kappa = (1 + s2) * d / n
    return (4 * kappa * d**2 * t) ** (-1 / 6)


def single_head(d: int, n: int, s2: float) -> tuple[float, float, float]:
    """omega, mu and approximate loss of the best single head.

    Example:
        >>> omega, mu, loss = single_head(5, 40, 0.1)
        >>> round(omega, 4), round(mu, 4), round(loss, 4)
        (0.4472, 1.6277, 0.3721)
    """
    shrink = 1 + (1 + s2) * np.e * d / n
    return d**-0.5, d**0.5 / shrink, 1 + s2 - 1 / shrink


def bayes_risk_limit(xi, s2: float):
    """Bayes risk when d and n grow with d/n = xi.

    Example:
        >>> round(float(bayes_risk_limit(0.2, 3.0)), 3)
        3.405
    """
    inner = 4 * s2 + (s2 + (1 - xi) / xi) ** 2
    return 0.5 * (s2 + (xi - 1) / xi + np.sqrt(inner))


def gd_preconditioner(sigma: Float[np.ndarray, "d d"], n: int, s2: float):
    """The best matrix G for the step (1/n) sum_l y_l <x_l, G x_q> with x ~ N(0, sigma)."""
    d = len(sigma)
    ridge = (np.trace(sigma) + d * s2) / n * np.eye(d)
    return np.linalg.inv((1 + 1 / n) * sigma + ridge)


def dgd_preconditioner(sigma: Float[np.ndarray, "d d"], n: int, s2: float):
    """The same for the debiased step.

    Example:
        >>> i = np.arange(5)
        >>> dgd_preconditioner(0.5 ** abs(i[:, None] - i), 40, 0.1).diagonal().round(3)
        array([1.091, 1.288, 1.289, 1.288, 1.091])
    """
    d = len(sigma)
    return np.linalg.inv(sigma + (np.trace(sigma) + d * s2) / n * np.eye(d))


def dgd_preconditioned_risk(
    g: Float[np.ndarray, "d d"], sigma: Float[np.ndarray, "d d"], n: int, s2: float
) -> float:
    """Risk of the debiased step with any matrix G."""
    d, a = len(sigma), (n - 1) / n
    second = a * sigma @ sigma + a * np.trace(sigma) / n * sigma
    signal = np.trace(sigma) - 2 * a * np.trace(sigma @ g @ sigma)
    signal += np.trace(g.T @ sigma @ g @ second)
    return float(s2 + signal / d + s2 * a / n * np.trace(sigma @ g @ sigma @ g.T))


def separated_task_risk(k: int, n: int, s2: float) -> float:
    """Risk of one of several tasks on k coordinates when the heads keep the tasks apart.

    Example:
        >>> round(separated_task_risk(4, 48, 0.1), 4)
        0.4122
    """
    return k * (1 - (n - 1) / (n + k + s2 * k))


def shared_task_risk(k: int, d: int, n: int, s2: float) -> float:
    """The same with one debiased step over all d coordinates.

    Example:
        >>> round(shared_task_risk(4, 6, 48, 0.1), 4)
        0.5568
    """
    return k * (1 - (n - 1) / n / (1 + d / n + s2 * d / n))
