"""E1: two heads are debiased gradient descent, at every context length."""

from dataclasses import dataclass

import numpy as np
import torch

from ... import montecarlo, plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, close, near
from ...references import known
from ...seeds import torch_generator
from ...tables import Tidy
from .. import theory
from ..data import LinearRegression
from ..predictors import gradient_step, ridge, softmax_heads
from ..references import REFERENCES

NAMES = ("two heads", "one head", "GD", "DGD", "ridge", "one head, mu of each L")


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
    device: str = "cpu"


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
        paired = (errors[0] - errors[3], errors[2] - errors[3])
        return torch.stack((*errors, *paired, config.noise * (1 + excess)), -1).cpu().numpy()

    mean, error = montecarlo.average(draw, config.prompts, config.batch)
    return {
        "length": length,
        "risk": mean[:-3],
        "error": error[:-3],
        # Two heads and GD, less DGD, on the same prompts.
        "over_dgd": mean[-3:-1],
        "over_dgd_error": error[-3:-1],
        "bayes": mean[-1],
        "bayes_error": error[-1],
        "gd": theory.gd_risk(eta, config.d, length, config.noise),
        "dgd": theory.dgd_risk(eta, config.d, length, config.noise),
        "bayes_limit": theory.bayes_risk_limit(config.d / length, config.noise),
    }


def checks(result: Result) -> list[Check]:
    """The authors' table, and closed forms within four standard errors."""
    out = []
    references = known(REFERENCES, "estimators", result.config)
    for part in result.parts:
        length, risk, error = int(part["length"]), part["risk"], part["error"]
        for name, ours, se in zip(NAMES, risk, error, strict=True):
            if length in references[name]:
                out.append(near(f"{name}, L={length}", ours, references[name][length], se))
        for name, i in (("gd", 2), ("dgd", 3)):
            label = f"{NAMES[i]} v closed form, L={length}"
            out.append(close(label, risk[i], float(part[name]), 4 * error[i]))
        over, se = part["over_dgd"], part["over_dgd_error"]
        law = float(part["gd"] - part["dgd"])
        out.append(close(f"GD - DGD, same prompts, L={length}", over[1], law, 4 * se[1]))
        if length >= 20 and result.config.omega <= 0.15:
            # Terms of order omega^2 / L are left out by the step.
            out.append(close(f"two heads - DGD, same prompts, L={length}", over[0], 0,
                             0.0025 + 4 * se[0]))  # fmt: skip
        if length in references["Bayes"]:
            out.append(near(f"Bayes, L={length}", part["bayes"], references["Bayes"][length],
                            part["bayes_error"]))  # fmt: skip
    return out


def draw(result: Result):
    """Risk against length."""
    figure, [[ax]] = plotting.panels(width=5.6, height=4.4)
    length, risk, error = result["length"], result["risk"], result["error"]
    for i, name in enumerate(NAMES):
        plotting.points(ax, length, risk[:, i], error[:, i], index=i, label=name)
    plotting.line(ax, length, result["gd"], index=2, label="GD, closed form")
    plotting.line(ax, length, result["dgd"], index=3, label="DGD, closed form", style="--")
    plotting.line(ax, length, result["bayes"], index=4, label="Bayes, Rao-Blackwell")
    plotting.line(ax, length, result["bayes_limit"], index=6, label="Bayes, limit", style=":")
    references = known(REFERENCES, "estimators", result.config)
    for i, name in enumerate(NAMES[:5]):
        plotting.stars(ax, references[name], index=i, label="authors" if i == 0 else None)
    ax.set_yscale("log")
    plotting.labels(ax, "context length $L$", r"risk $\mathcal{R}$", legend=False)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


EXPERIMENT = Experiment(
    entry("icl_linear.estimators"),
    Estimators(),
    Estimators(lengths=(10, 20, 40), prompts=20_000),
    measure,
    checks,
    draw,
    Tidy(
        {
            "length": "",
            "risk": "predictor",
            "error": "predictor",
            "gd": "",
            "dgd": "",
            "bayes": "",
            "bayes_error": "",
            "bayes_limit": "",
        },
        {"predictor": NAMES},
    ),
    work=lambda c: c.prompts * sum(c.lengths),
    points=lambda config: config.lengths,
    revision=3,
)
