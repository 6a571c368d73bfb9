"""E5: the flat valley of the pair (omega, mu) = (g, m), (-g, -m)."""

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
from ..predictors import smoothers
from ..references import REFERENCES


@dataclass(frozen=True, kw_only=True)
class Landscape(Config):
    """Values of g; prompts are common to all of them."""

    d: int = 5
    length: int = 40
    noise: float = 0.1
    g: tuple[float, ...] = (0.02, 0.05, 0.1, 0.13, 0.2, 0.25, 0.3, 0.35, 0.4)
    prompts: int = 200_000
    batch: int = 1_000
    device: str = "cpu"


def measure(config: Landscape, point: None) -> Arrays:
    """Risk at the best m of the sample, for every g on the same prompts."""
    task = LinearRegression(config.d, config.length, config.noise)
    generator = torch_generator(config.stream, "landscape", config.device)
    g = torch.tensor(config.g, dtype=torch.float64, device=config.device)
    m_theory = theory.pair_value(np.array(config.g), config.d, config.length, config.noise)
    m = torch.as_tensor(m_theory, device=config.device)

    def draw(count: int) -> np.ndarray:
        prompts = task.sample(count, generator=generator, dtype=torch.float64)
        plus, minus = smoothers(prompts, torch.cat((g, -g))).split(len(g), -1)
        read, y = plus - minus, prompts.y_query
        loss = (m * read - y).square()
        rise = loss - loss[:, :1]
        return torch.cat((rise, read * y, read**2, loss, y**2), -1).cpu().numpy()

    mean, error = montecarlo.average(draw, config.prompts, config.batch)
    count = len(g)
    cross, square, power = mean[count : 2 * count], mean[2 * count : 3 * count], mean[-1]
    return {
        "g": np.array(config.g),
        "m": cross / square,
        "risk": power - cross**2 / square,
        "risk_error": error[3 * count : 4 * count],
        "rise_error": error[:count],
        "m_theory": m_theory,
    }


def checks(result: Result) -> list[Check]:
    """Level and, more sharply, differences along the valley."""
    part = result.parts[0]
    risk = dict(zip(part["g"].tolist(), part["risk"], strict=True))
    references = known(REFERENCES, "landscape", result.config)["risk"]
    base, *others = [g for g in risk if g in references]
    own = dict(zip(part["g"].tolist(), part["risk_error"], strict=True))
    out = [near(f"risk at g={base}", risk[base], references[base], error=own[base])]
    # Differences on common prompts: theirs came from 60,000 and carry an error of their own.
    theirs = 1 + result.config.prompts / 60_000
    errors = dict(zip(part["g"].tolist(), part["rise_error"], strict=True))
    for g in others:
        rise = references[g].value - references[base].value
        out.append(close(f"rise of the risk from g={base} to {g}", risk[g] - risk[base], rise,
                         1e-4 + 4 * errors[g] * theirs**0.5, "measured"))  # fmt: skip
    return out


def draw(result: Result):
    """The loss over (g, m) with its valley, and the risk along it."""
    part, config = result.parts[0], result.config
    figure, [[left, right]] = plotting.panels(1, 2)
    problem = (config.d, config.length, config.noise)
    g, m = np.meshgrid(np.linspace(0.02, 0.5, 200), np.linspace(0.2, 8, 200))
    loss = theory.pair_loss(m, g, *problem)
    floor = theory.pair_loss(theory.pair_value(1e-3, *problem), 1e-3, *problem)
    levels = floor * np.array((1.003, 1.02, 1.13, 1.36, 1.8, 2.7, 4.5, 9.0))
    contour = left.contour(g, m, loss, levels, cmap="viridis", linewidths=0.8)
    left.clabel(contour, fontsize=7)
    fine = np.linspace(0.05, 0.5, 200)
    left.plot(fine, theory.pair_value(fine, *problem), "k--", label="valley $m^*(g)$")
    plotting.points(left, part["g"][2:], part["m"][2:], label="best m, Monte Carlo")
    left.set_ylim(0.2, 8)
    plotting.labels(left, "$g$", "$m$")
    plotting.points(right, part["g"], part["risk"] - part["risk"][0], part["rise_error"],
                    label="risk, Monte Carlo")  # fmt: skip
    valley = theory.pair_loss(theory.pair_value(fine, *problem), fine, *problem)
    plotting.line(right, fine, valley - floor, index=1, label="approximate loss")
    references = known(REFERENCES, "landscape", config)["risk"]
    base = references.get(float(part["g"][0]))
    if base is not None:
        rises = {g: r._replace(value=r.value - base.value) for g, r in references.items()}
        plotting.stars(right, rises, index=2, label="earlier run")
    plotting.labels(right, "$g$", "rise along the valley")
    return figure


EXPERIMENT = Experiment(
    entry("icl_linear.landscape"),
    Landscape(),
    Landscape(prompts=20_000),
    measure,
    checks,
    draw,
    Tidy(
        {"risk": "g", "risk_error": "g", "rise_error": "g", "m": "g", "m_theory": "g"}, {"g": "g"}
    ),
    work=lambda c: c.prompts * c.length * len(c.g),
    revision=3,
)
