"""E8: several tasks at once need one head more than there are tasks."""

from dataclasses import dataclass

import numpy as np
import torch

from ... import plotting
from ...experiment import Arrays, Check, Config, Experiment, Result, at_most, close
from ...seeds import torch_generator
from .. import theory
from ..data import MultiTask
from ..predictors import read_labels

MEASURED = {1: 1.190, 2: 0.550, 3: 0.412, 4: 0.411}


@dataclass(frozen=True, kw_only=True)
class MultiTaskHeads(Config):
    """Seeds are starts of L-BFGS on the same prompts, over diagonal KQ and one mu per task."""

    seeds: int = 4
    heads: tuple[int, ...] = (1, 2, 3, 4)
    d: int = 6
    length: int = 48
    prompts: int = 12_000
    iterations: int = 80


def measure(config: MultiTaskHeads, heads: int) -> Arrays:
    """Every start, with its loss."""
    task = MultiTask(config.d, config.length)
    generator = torch_generator(config.stream, "multitask prompts", config.device)
    prompts = task.sample(config.prompts, generator=generator)
    tasks = len(task.supports)
    losses, diagonals, values = [], [], []
    for start in config.streams:
        random = torch_generator(start, f"multitask start {heads}", config.device)
        w = 0.3 * torch.randn(heads, config.d, generator=random, device=config.device)
        mu = torch.randn(tasks, heads, generator=random, device=config.device)
        loss, w, mu = _fit(prompts, w, mu, config.iterations)
        losses.append(loss)
        diagonals.append(w)
        values.append(mu)
    return {
        "heads": heads,
        "loss": np.array(losses),
        "diagonal": np.stack(diagonals),
        "mu": np.stack(values),
    }


def _fit(prompts, w, mu, iterations: int):
    w, mu = w.requires_grad_(), mu.requires_grad_()
    optimiser = torch.optim.LBFGS(
        [w, mu], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        read = read_labels(prompts, w * prompts.x_query[:, None])
        value = (torch.einsum("bhn,nh->bn", read, mu) - prompts.y_query).square().mean()
        value.backward()
        return value

    optimiser.step(loss)
    return loss().item(), w.detach().cpu().numpy(), mu.detach().cpu().numpy()


def checks(result: Result) -> list[Check]:
    """Best losses, and the geometry of three heads."""
    out = []
    noise = 0.02 * (12_000 / result.config.prompts) ** 0.5
    for part in result.parts:
        heads = int(part["heads"])
        out.append(close(f"best loss, H={heads}", part["loss"].min(), MEASURED[heads],
                         noise * (1 + MEASURED[heads]), "measured"))  # fmt: skip
        if heads == 3:
            products, zero_sum = geometry(part)
            on, off = products[SUPPORT], products[~SUPPORT]
            out.append(close("H=3: mean mu.w on the support", on.mean(), 0.92, 0.04))
            out.append(at_most("H=3: largest |mu.w| off the support", np.abs(off).max(), 0.08))
            out.append(at_most("H=3: |sum mu| / |mu|", zero_sum, 0.05))
    return out


SUPPORT = np.array([[True] * 4 + [False] * 2, [False] * 2 + [True] * 4])


def geometry(part: Arrays) -> tuple[np.ndarray, float]:
    """mu_n . w_j of the best start, and the largest |1 . mu_n| / |mu_n|."""
    best = int(part["loss"].argmin())
    mu = part["mu"][best]
    zero_sum = np.abs(mu.sum(1)) / np.linalg.norm(mu, axis=1)
    return mu @ part["diagonal"][best], float(zero_sum.max())


def draw(result: Result):
    """Losses of all starts, and mu^T w of the best for each number of heads."""
    figure, [axes] = plotting.panels(1, 1 + len(result.parts), width=2.9)
    config = result.config
    for part in result.parts:
        heads = int(part["heads"])
        plotting.points(axes[0], [heads] * len(part["loss"]), part["loss"])
        plotting.published(axes[0], [heads], [MEASURED[heads]], index=1, label=None)
    problem = (config.length, 0.1)
    for i, (name, level) in enumerate((
        ("tasks apart", theory.separated_task_risk(4, *problem)),
        ("one shared step", theory.shared_task_risk(4, config.d, *problem)),
    )):  # fmt: skip
        axes[0].axhline(level, color="black", ls=("--", ":")[i], lw=1, label=name)
    axes[0].set_xticks(config.heads)
    plotting.labels(axes[0], "heads H", "loss (every start)")
    for ax, part in zip(axes[1:], result.parts, strict=True):
        products, _ = geometry(part)
        image = plotting.heatmap(ax, products, title=f"mu_n . w_j, H={int(part['heads'])}", limit=1)
        ax.set(yticks=(0, 1), xlabel="coordinate j", ylabel="task n")
    figure.colorbar(image, ax=axes[-1], shrink=0.6)
    return figure


EXPERIMENT = Experiment(
    "icl_linear.multitask",
    "E8: two tasks on overlapping coordinates: one head smooths, two share one step, three keep "
    "the tasks apart in superposition.",
    MultiTaskHeads(),
    None,
    measure,
    checks,
    draw,
    points=lambda config: config.heads,
    revision=2,
    budget=45,
)
