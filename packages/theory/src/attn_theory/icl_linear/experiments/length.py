"""E6: softmax heads generalise to other lengths, unnormalised linear attention does not."""

from dataclasses import dataclass

import numpy as np
import torch

from core_attn import bidirectional_linear_attention

from ... import montecarlo, plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, close, near
from ...references import known
from ...seeds import torch_generator
from ...tables import Tidy
from .. import theory
from ..data import LinearRegression
from ..predictors import softmax_heads
from ..references import REFERENCES

NAMES = ("linear attention", "two softmax heads")


@dataclass(frozen=True, kw_only=True)
class Length(Config):
    """Both models have their step set at `tuned`."""

    d: int = 5
    noise: float = 0.1
    tuned: int = 40
    omega: float = 0.13
    lengths: tuple[int, ...] = (20, 40, 80, 160, 320)
    prompts: int = 60_000
    batch: int = 1_000
    device: str = "cpu"


def measure(config: Length, length: int) -> Arrays:
    """Both models on the same prompts of one length."""
    task = LinearRegression(config.d, length, config.noise)
    generator = torch_generator(config.stream, f"length {length}", config.device)
    eta = theory.gd_step(config.d, config.tuned, config.noise)
    debiased = theory.dgd_step(config.d, config.tuned, config.noise)
    pair = torch.tensor([1.0, -1.0], dtype=torch.float64, device=config.device)

    def draw(count: int) -> np.ndarray:
        prompts = task.sample(count, generator=generator, dtype=torch.float64)
        linear = bidirectional_linear_attention(
            prompts.x_query[:, None, None], prompts.x[:, None], prompts.y[:, None],
            scale=eta / config.tuned,
        )  # fmt: skip
        mu = debiased / (2 * config.omega)
        heads = softmax_heads(prompts, config.omega * pair, mu * pair)
        guesses = torch.stack((linear.flatten(), heads), -1)
        return (guesses - prompts.y_query).square().cpu().numpy()

    mean, error = montecarlo.average(draw, config.prompts, config.batch)
    return {
        "length": length,
        "risk": mean,
        "error": error,
        "linear": theory.linear_attention_risk(eta, config.d, length, config.tuned, config.noise),
        "dgd": theory.dgd_risk(debiased, config.d, length, config.noise),
    }


def checks(result: Result) -> list[Check]:
    """The closed form's table, and Monte Carlo against it."""
    out = []
    references = known(REFERENCES, "length", result.config)
    for part in result.parts:
        length, risk, error = int(part["length"]), part["risk"], part["error"]
        exact = float(part["linear"])
        out.append(close(f"linear, Monte Carlo, L={length}", risk[0], exact, 4 * error[0]))
        for name, value, se in zip(NAMES, (exact, risk[1]), (0.0, error[1]), strict=True):
            if length in references[name]:
                tag = "closed form" if name == NAMES[0] else "Monte Carlo"
                out.append(near(f"{name}, {tag}, L={length}", value, references[name][length], se))
    return out


def draw(result: Result):
    """Risk against length."""
    figure, [[ax]] = plotting.panels(width=5)
    length = result["length"]
    references = known(REFERENCES, "length", result.config)
    for i, name in enumerate(NAMES):
        plotting.stars(ax, references[name], index=i, label="earlier run" if i else None)
        plotting.points(
            ax, length, result["risk"][:, i], result["error"][:, i], index=i, label=name
        )
    fine = np.geomspace(length.min(), length.max(), 200)
    config = result.config
    eta = theory.gd_step(config.d, config.tuned, config.noise)
    exact = theory.linear_attention_risk(eta, config.d, fine, config.tuned, config.noise)
    plotting.line(ax, fine, exact, index=0, label="closed form")
    eta = theory.dgd_step(config.d, config.tuned, config.noise)
    plotting.line(ax, fine, theory.dgd_risk(eta, config.d, fine, config.noise), index=1,
                  label="DGD, closed form")  # fmt: skip
    ax.axvline(config.tuned, color="black", lw=0.7, ls=":")
    ax.set(xscale="log", yscale="log")
    plotting.ticks(ax, config.lengths)
    plotting.labels(ax, f"test length $L$ (tuned at {config.tuned})", r"risk $\mathcal{R}$")
    return figure


EXPERIMENT = Experiment(
    entry("icl_linear.length"),
    Length(),
    Length(prompts=10_000, lengths=(20, 40, 80)),
    measure,
    checks,
    draw,
    Tidy(
        {"length": "", "risk": "predictor", "error": "predictor", "linear": "", "dgd": ""},
        {"predictor": NAMES},
    ),
    work=lambda c: c.prompts * sum(c.lengths),
    points=lambda config: config.lengths,
    revision=2,
)
