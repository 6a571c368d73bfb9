"""E6: softmax heads generalise to other lengths, unnormalised linear attention does not."""

from dataclasses import dataclass

import numpy as np
import torch

from core_attn import bidirectional_linear_attention

from ... import montecarlo, plotting
from ...experiment import Arrays, Check, Config, Experiment, Result, close
from ...seeds import torch_generator
from .. import theory
from ..data import LinearRegression
from ..predictors import softmax_heads

LINEAR = {20: 0.4849, 40: 0.2398, 80: 0.8595, 160: 6.539, 320: 35.66}
SOFTMAX = {20: 0.366, 40: 0.243, 80: 0.179, 160: 0.147, 320: 0.131}


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
    for part in result.parts:
        length, risk, error = int(part["length"]), part["risk"], part["error"]
        exact = float(part["linear"])
        out.append(close(f"linear, closed form, L={length}", exact, LINEAR[length],
                         6e-4 * LINEAR[length]))  # fmt: skip
        out.append(close(f"linear, Monte Carlo, L={length}", risk[0], exact, 4 * error[0]))
        out.append(close(f"two heads, L={length}", risk[1], SOFTMAX[length], 4 * error[1] + 2e-3,
                         "measured"))  # fmt: skip
    return out


def draw(result: Result):
    """Risk against length."""
    figure, [[ax]] = plotting.panels(width=5)
    length = result["length"]
    for i, name in enumerate(("linear attention", "two softmax heads")):
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
    plotting.labels(ax, f"test length L (tuned at {config.tuned})", "risk")
    return figure


EXPERIMENT = Experiment(
    "icl_linear.length",
    "E6: tuned at length 40, softmax heads improve with longer contexts, unnormalised linear "
    "attention fails away from it.",
    Length(),
    Length(prompts=10_000, lengths=(20, 40, 80)),
    measure,
    checks,
    draw,
    points=lambda config: config.lengths,
    revision=2,
    budget=5,
)
