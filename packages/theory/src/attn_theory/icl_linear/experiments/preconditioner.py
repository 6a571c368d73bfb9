"""E7: with correlated covariates the pair of heads learns the best preconditioner."""

from dataclasses import dataclass

import numpy as np
import torch

from ... import montecarlo, plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_most, close, near
from ...optimize import lbfgs
from ...references import known
from ...seeds import torch_generator
from ...tables import Tidy
from .. import theory
from ..data import LinearRegression
from ..predictors import read_labels
from ..references import REFERENCES


@dataclass(frozen=True, kw_only=True)
class Preconditioner(Config):
    """L-BFGS over a full matrix A and m, y = m (read(A x_q) - read(-A x_q)), on fixed prompts."""

    d: int = 5
    length: int = 40
    noise: float = 0.1
    rho: float = 0.5
    prompts: int = 20_000
    iterations: int = 60
    test: int = 100_000
    device: str = "cpu"


def measure(config: Preconditioner, point: None) -> Arrays:
    """The learned 2 m A, the closed form, and both risks."""
    task = LinearRegression(config.d, config.length, config.noise, config.rho)
    generator = torch_generator(config.stream, "preconditioner", config.device)
    prompts = task.sample(config.prompts, generator=generator, dtype=torch.float64)
    matrix = (0.1 * torch.eye(config.d, dtype=torch.float64)).to(config.device).requires_grad_()
    m = torch.tensor(4.0, dtype=torch.float64, device=config.device, requires_grad=True)

    def loss() -> torch.Tensor:
        asked = prompts.x_query @ matrix.T
        plus, minus = read_labels(prompts, torch.stack((asked, -asked), 1))[..., 0].unbind(-1)
        return (m * (plus - minus) - prompts.y_query[:, 0]).square().mean()

    lbfgs((matrix, m), loss, config.iterations)
    learned = (2 * m * matrix).detach().cpu().numpy()
    sigma = task.covariance().numpy()
    best = theory.dgd_preconditioner(sigma, config.length, config.noise)
    scalars = np.linspace(0.1, 1.5, 1401)
    eye = np.eye(config.d)
    problem = (sigma, config.length, config.noise)
    by_scalar = [theory.dgd_preconditioned_risk(s * eye, *problem) for s in scalars]
    step = scalars[int(np.argmin(by_scalar))]
    options = torch.as_tensor(np.stack((best, step * eye, learned)), device=config.device)

    def draw(count: int) -> np.ndarray:
        new = task.sample(count, generator=generator, dtype=torch.float64)
        moment = torch.einsum("bld,bl->bd", new.x - new.x.mean(1, keepdim=True), new.y[..., 0])
        guess = torch.einsum("bd,kde,be->bk", moment / config.length, options, new.x_query)
        return (guess - new.y_query).square().cpu().numpy()

    mean, error = montecarlo.average(draw, config.test, 2_000)
    return {
        "learned": learned,
        "best": best,
        "distance": np.linalg.norm(learned - best) / np.linalg.norm(best),
        "closed": np.array((theory.dgd_preconditioned_risk(best, *problem), min(by_scalar))),
        "risk": mean,
        "error": error,
    }


def checks(result: Result) -> list[Check]:
    """The matrix, its closed form and the gain over one scalar step."""
    part = result.parts[0]
    closed, risk, error = part["closed"], part["risk"], part["error"]
    slack = (20_000 / result.config.prompts) ** 0.5
    out = [
        at_most("relative distance of 2 m A from G", part["distance"], 0.05 * slack, "measured"),
        close("risk with G, Monte Carlo", risk[0], closed[0], 4 * error[0]),
        close("risk with the best scalar step, Monte Carlo", risk[1], closed[1], 4 * error[1]),
    ]
    references = known(REFERENCES, "preconditioner", result.config)
    for value, name in zip(closed, ("risk with G", "risk with the best scalar step"), strict=True):
        for row, reference in references[name].items():
            out.append(near(f"{name}, {row}", value, reference))
    for (i, j), reference in references["G"].items():
        out.append(near(f"G[{i},{j}]", part["best"][i, j], reference))
    return out


def draw(result: Result):
    """Learned and best matrix, and their difference."""
    figure, [axes] = plotting.panels(1, 3, width=3)
    part = result.parts[0]
    limit = np.abs(part["best"]).max()
    pictures = (part["learned"], part["best"], part["learned"] - part["best"])
    titles = ("learned 2 m A", "closed form G", f"difference ({part['distance']:.3f})")
    for ax, picture, title in zip(axes, pictures, titles, strict=True):
        image = plotting.heatmap(ax, picture, title=title, limit=limit)
    figure.colorbar(image, ax=axes[-1], shrink=0.8)
    return figure


EXPERIMENT = Experiment(
    entry("icl_linear.preconditioner"),
    Preconditioner(),
    Preconditioner(prompts=5_000, test=20_000, iterations=30),
    measure,
    checks,
    draw,
    Tidy(
        {"risk": "predictor", "error": "predictor", "distance": ""},
        {"predictor": ("G", "best scalar step", "learned")},
    ),
    more={"matrices": Tidy({"learned": "row column", "best": "row column"})},
    work=lambda c: (c.iterations * c.prompts + c.test) * c.length,
    revision=3,
)
