"""E9: gradient descent is within a constant factor of Bayes when d grows with L."""

from dataclasses import dataclass

import numpy as np
import torch

from ... import montecarlo, plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_most, close, near
from ...references import known
from ...seeds import torch_generator
from ...tables import Tidy
from .. import theory
from ..data import LinearRegression
from ..predictors import gradient_step, ridge
from ..references import REFERENCES


@dataclass(frozen=True, kw_only=True)
class Proportional(Config):
    """Ratios xi = d / L at one length."""

    length: int = 100
    d: tuple[int, ...] = (5, 10, 20, 40, 80)
    noise: float = 3.0
    prompts: int = 20_000
    batch: int = 1_000
    device: str = "cpu"


def limit_step(xi: float, s2: float) -> float:
    """The best step of gradient descent when d and L grow with d/L = xi."""
    return 1 / (1 + xi * (1 + s2))


def measure(config: Proportional, d: int) -> Arrays:
    """Gradient descent with the step of the limit, and ridge, at one d."""
    task = LinearRegression(d, config.length, config.noise)
    generator = torch_generator(config.stream, f"proportional {d}", config.device)
    eta = limit_step(d / config.length, config.noise)

    def draw(count: int) -> np.ndarray:
        prompts = task.sample(count, generator=generator, dtype=torch.float64)
        bayes, excess = ridge(prompts, config.noise * d)
        guesses = torch.stack((eta * gradient_step(prompts), bayes), -1)
        errors = (guesses - prompts.y_query).square()
        return torch.cat((errors, config.noise * (1 + excess[:, None])), -1).cpu().numpy()

    mean, error = montecarlo.average(draw, config.prompts, config.batch)
    return {
        "d": d,
        "xi": d / config.length,
        "eta": eta,
        "risk": mean,
        "error": error,
        "gd": theory.gd_risk(eta, d, config.length, config.noise),
        "bayes": theory.bayes_risk_limit(d / config.length, config.noise),
    }


def checks(result: Result) -> list[Check]:
    """The values at xi = 0.2, and the factor at every ratio."""
    out = []
    references = known(REFERENCES, "proportional", result.config)
    for part in result.parts:
        d, risk, error = int(part["d"]), part["risk"], part["error"]
        gd = float(part["gd"])
        out.append(close(f"GD v closed form, d={d}", risk[0], gd, 4 * error[0]))
        for name, value, se in (
            ("step of the limit", part["eta"], 0.0),
            ("GD, closed form", gd, 0.0),
            ("ridge", risk[1], error[1]),
            ("Bayes, Rao-Blackwell", risk[2], error[2]),
        ):
            if d in references[name]:
                out.append(near(f"{name}, d={d}", value, references[name][d], se))
        s2 = result.config.noise
        out.append(at_most(f"excess of GD / excess of Bayes, d={d}", (gd - s2) / (risk[2] - s2),
                           1.6, "chosen"))  # fmt: skip
    return out


def draw(result: Result):
    """Risk against d / L."""
    figure, [[ax]] = plotting.panels(width=5)
    xi, length = result["xi"], result.config.length
    references = known(REFERENCES, "proportional", result.config)
    for i, name in enumerate(("GD", "ridge", "Bayes, Rao-Blackwell")):
        plotting.points(ax, xi, result["risk"][:, i], result["error"][:, i], index=i, label=name)
        stars = {d / length: value for d, value in references[name].items()}
        plotting.stars(ax, stars, index=i, label="earlier run" if i == 1 else None)
    plotting.line(ax, xi, result["gd"], index=0, label="GD, closed form")
    fine = np.geomspace(xi.min(), xi.max(), 100)
    plotting.line(ax, fine, theory.bayes_risk_limit(fine, result.config.noise), index=2,
                  label="Bayes, limit")  # fmt: skip
    plotting.labels(
        ax, r"$\xi = d / L$", rf"risk $\mathcal{{R}}$ ($\sigma^2 = {result.config.noise}$)"
    )
    return figure


EXPERIMENT = Experiment(
    entry("icl_linear.proportional"),
    Proportional(),
    Proportional(d=(10, 20), prompts=5_000),
    measure,
    checks,
    draw,
    Tidy(
        {"d": "", "xi": "", "risk": "predictor", "error": "predictor", "gd": "", "bayes": ""},
        {"predictor": ("GD", "ridge", "Bayes, Rao-Blackwell")},
    ),
    work=lambda c: c.prompts * c.length * sum(c.d),
    points=lambda config: config.d,
    revision=2,
)
