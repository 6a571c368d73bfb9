"""E1: two heads are debiased gradient descent, at every context length."""

from dataclasses import dataclass

import numpy as np
import torch

from ... import montecarlo, plotting
from ...experiment import Arrays, Check, Config, Experiment, Result, close
from ...seeds import torch_generator
from .. import theory
from ..data import LinearRegression
from ..predictors import gradient_step, ridge, softmax_heads

NAMES = ("two heads", "one head", "GD", "DGD", "ridge", "one head, mu of each L")
# Printed in the authors' notebook for 50,000 prompts per length.
AUTHORS = {
    10: (0.6039, 0.8754, 0.6434, 0.6140, 0.1938),
    20: (0.3675, 0.5859, 0.3709, 0.3692, 0.1346),
    40: (0.2430, 0.4048, 0.2407, 0.2431, 0.1146),
    60: (0.1997, 0.3389, 0.1976, 0.1993, 0.1087),
    80: (0.1759, 0.3016, 0.1740, 0.1757, 0.1056),
    100: (0.1638, 0.2844, 0.1622, 0.1635, 0.1041),
}
RETUNED = {10: 0.7483, 20: 0.5698, 40: 0.4066, 60: 0.3350, 100: 0.2622}
BAYES = {10: 0.1957, 20: 0.1339, 40: 0.1145, 60: 0.1092, 100: 0.1053}


@dataclass(frozen=True, kw_only=True)
class Estimators(Config):
    """Heads omega = (g, -g), mu = (m, -m) against the step 2 m g; prompts per length."""

    d: int = 5
    noise: float = 0.1
    omega: float = 0.13
    mu: float = 3.45
    lengths: tuple[int, ...] = tuple(range(10, 101, 5))
    tuned_at: int = 40
    prompts: int = 100_000
    batch: int = 500


def measure(config: Estimators, length: int) -> Arrays:
    """All predictors on the same prompts of one length."""
    task = LinearRegression(config.d, length, config.noise)
    generator = torch_generator(config.stream, f"estimators {length}", config.device)
    pair = torch.tensor([1.0, -1.0], device=config.device, dtype=torch.float64)
    alone, mu_fixed, _ = theory.single_head(config.d, config.tuned_at, config.noise)
    _, mu_here, _ = theory.single_head(config.d, length, config.noise)
    eta = 2 * config.mu * config.omega
    one = torch.tensor([alone], device=config.device, dtype=torch.float64)

    def draw(count: int) -> np.ndarray:
        prompts = task.sample(count, generator=generator, dtype=torch.float64)
        bayes, excess = ridge(prompts, config.noise * config.d)
        single = softmax_heads(prompts, one, torch.ones_like(one))
        guesses = (
            softmax_heads(prompts, config.omega * pair, config.mu * pair),
            mu_fixed * single,
            eta * gradient_step(prompts),
            eta * gradient_step(prompts, debiased=True),
            bayes,
            mu_here * single,
        )
        errors = [(guess - prompts.y_query[:, 0]).square() for guess in guesses]
        return torch.stack((*errors, config.noise * (1 + excess)), -1).cpu().numpy()

    mean, error = montecarlo.average(draw, config.prompts, config.batch)
    return {
        "length": length,
        "risk": mean[:-1],
        "error": error[:-1],
        "bayes": mean[-1],
        "bayes_error": error[-1],
        "gd": theory.gd_risk(eta, config.d, length, config.noise),
        "dgd": theory.dgd_risk(eta, config.d, length, config.noise),
        "bayes_limit": theory.bayes_risk_limit(config.d / length, config.noise),
    }


def checks(result: Result) -> list[Check]:
    """The authors' table within four standard errors of both, closed forms within ours."""
    out = []
    theirs = (result.config.prompts / 50_000) ** 0.5
    for part in result.parts:
        length, risk, error = int(part["length"]), part["risk"], part["error"]
        if length not in AUTHORS:
            continue
        for name, ours, se, printed in zip(NAMES, risk, error, AUTHORS[length], strict=False):
            tolerance = 4 * se * (1 + theirs**2) ** 0.5
            out.append(close(f"{name}, L={length}", ours, printed, tolerance, "official code"))
        for name, i in (("gd", 2), ("dgd", 3)):
            label = f"{NAMES[i]} v closed form, L={length}"
            out.append(close(label, risk[i], float(part[name]), 4 * error[i]))
        if length in BAYES:
            tolerance = 4 * float(part["bayes_error"]) + 2e-4
            out.append(
                close(f"Bayes, L={length}", part["bayes"], BAYES[length], tolerance, "measured")
            )
            tolerance = 4 * error[5] * (1 + theirs**2) ** 0.5
            out.append(
                close(f"{NAMES[5]}, L={length}", risk[5], RETUNED[length], tolerance, "measured")
            )
    return out


def draw(result: Result):
    """Risk against length."""
    figure, [[ax]] = plotting.panels(width=5.6, height=4)
    length, risk, error = result["length"], result["risk"], result["error"]
    for i, name in enumerate(NAMES):
        plotting.points(ax, length, risk[:, i], error[:, i], index=i, label=name)
    plotting.line(ax, length, result["gd"], index=2, label="GD, closed form")
    plotting.line(ax, length, result["dgd"], index=3, label="DGD, closed form", style="--")
    plotting.line(ax, length, result["bayes"], index=4, label="Bayes, Rao-Blackwell")
    plotting.line(ax, length, result["bayes_limit"], index=6, label="Bayes, limit", style=":")
    for i in range(5):
        label = "authors" if i == 0 else None
        plotting.published(ax, list(AUTHORS), [row[i] for row in AUTHORS.values()], index=i,
                           label=label)  # fmt: skip
    ax.set_yscale("log")
    plotting.labels(ax, "context length L", "risk", legend=False)
    ax.legend(ncols=2)
    return figure


EXPERIMENT = Experiment(
    "icl_linear.estimators",
    "E1: risk of two heads, one head, gradient descent, debiased gradient descent and ridge "
    "against context length, on common prompts, with closed forms.",
    Estimators(),
    Estimators(lengths=(10, 20, 40), prompts=20_000),
    measure,
    checks,
    draw,
    points=lambda config: config.lengths,
    revision=2,
    budget=15,
)
