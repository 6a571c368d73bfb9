"""E10: the two heads on real rows, the diabetes data of scikit-learn."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_least, at_most, close, near
from ...references import known
from ...seeds import numpy_generator
from ...tables import Tidy
from .. import theory
from ..data import Prompts
from ..predictors import gradient_step, ridge, softmax_heads
from ..references import REFERENCES

NAMES = ("context mean", "two heads", "DGD", "one head", "ridge")
COLUMNS = (2, 3, 8, 6, 1)  # bmi, bp, s5, s3, sex
ROWS = 442


@dataclass(frozen=True, kw_only=True)
class Diabetes(Config):
    """Draws of L + 1 rows without replacement."""

    draws: int = 4000
    lengths: tuple[int, ...] = (20, 40, 100)
    gamma: float = 0.05
    noise: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if max(self.lengths) >= ROWS:
            raise ValueError(
                f"lengths must be at most {ROWS - 1}, as one of the {ROWS} rows is asked for, "
                f"got {max(self.lengths)}"
            )


def rows(whitened: bool) -> tuple[np.ndarray, np.ndarray]:
    """The standardised features and target; whitened features are uncorrelated on all rows.

    Example:
        >>> x, y = rows(True)
        >>> x.shape, bool(np.allclose(np.cov(x.T, bias=True), np.eye(5)))
        ((442, 5), True)
    """
    data: Any = load_diabetes()
    x, y = data.data[:, COLUMNS], (data.target - data.target.mean()) / data.target.std()
    x = (x - x.mean(0)) / x.std(0)
    if whitened:
        values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
        x = x @ (vectors / np.sqrt(values)) @ vectors.T
    return x, y


def measure(config: Diabetes, point: tuple[str, int]) -> Arrays:
    """All predictors on the same draws."""
    kind, length = point
    x, y = rows(kind == "whitened")
    rng = numpy_generator(config.stream, f"diabetes {length}")
    picked = rng.random((config.draws, len(x))).argsort(1)[:, : length + 1]
    x, y = torch.tensor(x[picked]), torch.tensor(y[picked])[..., None]
    prompts = Prompts(torch.cat((x, y), -1)[:, :-1], x[:, -1], y[:, -1])
    d, s2 = x.shape[-1], config.noise
    eta = theory.dgd_step(d, length, s2)
    pair = torch.tensor([1.0, -1.0], dtype=torch.float64)
    omega, mu, _ = theory.single_head(d, length, s2)
    one = torch.ones(1, dtype=torch.float64)
    guesses = (
        prompts.y.mean(1)[:, 0],
        softmax_heads(prompts, config.gamma * pair, eta / (2 * config.gamma) * pair),
        eta * gradient_step(prompts, debiased=True),
        softmax_heads(prompts, omega * one, mu * one),
        ridge(prompts, s2 * d)[0],
    )
    errors = (torch.stack(guesses, -1) - prompts.y_query).square().numpy()
    return {
        "whitened": kind == "whitened",
        "length": length,
        "risk": errors.mean(0),
        "error": errors.std(0) / config.draws**0.5,
    }


def checks(result: Result) -> list[Check]:
    """The earlier table, two heads = DGD, and the order that reverses on raw features."""
    out = []
    references = known(REFERENCES, "diabetes", result.config)
    for part in result.parts:
        kind, length = "whitened" if part["whitened"] else "raw", int(part["length"])
        risk, tag = part["risk"], f"{kind}, L={length}"
        for i, name in enumerate(NAMES):
            if (kind, length) in references[name]:
                out.append(near(f"{name}, {tag}", risk[i], references[name][kind, length],
                                part["error"][i]))  # fmt: skip
        out.append(close(f"two heads / DGD, {tag}", risk[1] / risk[2], 1, 0.01))
        if kind == "whitened":
            out.append(at_most(f"two heads / one head, {tag}", risk[1] / risk[3], 1.0))
        elif length >= 40:
            out.append(at_least(f"two heads / one head, {tag}", risk[1] / risk[3], 1.0, "measured"))
    return out


def draw(result: Result):
    """Risk against length, whitened and raw."""
    figure, [axes] = plotting.panels(1, 2)
    references = known(REFERENCES, "diabetes", result.config)
    for ax, whitened in zip(axes, (True, False), strict=True):
        chosen = result["whitened"] == whitened
        kind = "whitened" if whitened else "raw"
        for i, name in enumerate(NAMES):
            length = result["length"][chosen]
            plotting.points(ax, length, result["risk"][chosen, i], result["error"][chosen, i],
                            index=i, label=name)  # fmt: skip
            stars = {row[1]: value for row, value in references[name].items() if row[0] == kind}
            plotting.stars(ax, stars, index=i)
        plotting.labels(ax, "context length $L$", "mean squared error", kind, legend=whitened)
    return figure


EXPERIMENT = Experiment(
    entry("icl_linear.diabetes"),
    Diabetes(),
    Diabetes(draws=1000),
    measure,
    checks,
    draw,
    Tidy(
        {"whitened": "", "length": "", "risk": "predictor", "error": "predictor"},
        {"predictor": NAMES},
    ),
    work=lambda c: c.draws * sum(c.lengths),
    points=lambda config: [(k, n) for k in ("whitened", "raw") for n in config.lengths],
)
