"""E8: several tasks at once need one head more than there are tasks."""

from dataclasses import dataclass

import numpy as np
import torch

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_most, close, near
from ...optimize import lbfgs
from ...references import known
from ...seeds import torch_generator
from ...tables import Tidy
from .. import theory
from ..data import MultiTask
from ..predictors import read_labels
from ..references import REFERENCES


@dataclass(frozen=True, kw_only=True)
class MultiTaskHeads(Config):
    """Seeds are starts of L-BFGS on the same prompts, over diagonal KQ and one mu per task.

    Attributes:
        support: coordinates of each of the two tasks, the first and the last of x.
    """

    seeds: int = 4
    heads: tuple[int, ...] = (1, 2, 3, 4)
    d: int = 6
    length: int = 48
    noise: float = 0.1
    support: int = 4
    prompts: int = 12_000
    iterations: int = 80
    device: str = "cpu"

    def __post_init__(self):
        super().__post_init__()
        if self.support > self.d:
            raise ValueError(f"support must be at most d = {self.d}, got {self.support}")

    @property
    def task(self) -> MultiTask:
        """The problem that the prompts are drawn from."""
        every = tuple(range(self.d))
        supports = (every[: self.support], every[self.d - self.support :])
        return MultiTask(self.d, self.length, self.noise, supports)


def measure(config: MultiTaskHeads, heads: int) -> Arrays:
    """Every start, with its loss."""
    task = config.task
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

    def loss() -> torch.Tensor:
        read = read_labels(prompts, w * prompts.x_query[:, None])
        return (torch.einsum("bhn,nh->bn", read, mu) - prompts.y_query).square().mean()

    reached = lbfgs((w, mu), loss, iterations)
    return reached, w.detach().cpu().numpy(), mu.detach().cpu().numpy()


def checks(result: Result) -> list[Check]:
    """Best losses, and the geometry of three heads."""
    out, config = [], result.config
    references = known(REFERENCES, "multitask", config)["loss"]
    inside = _inside(config)
    eta = theory.dgd_step(config.support, config.length, config.noise)
    for part in result.parts:
        heads = int(part["heads"])
        if heads in references:
            fewer = (12_000 / config.prompts) ** 0.5
            out.append(near(f"best loss, H={heads}", part["loss"].min(), references[heads],
                            fewer * references[heads].error))  # fmt: skip
        if heads == 3:
            products, zero_sum = geometry(part)
            on, off = products[inside], products[~inside]
            out.append(close("H=3: mean mu.w on the support v DGD", on.mean(), eta, 0.04))
            fewer = max(1, 12_000 / config.prompts) ** 0.5
            out.append(at_most("H=3: largest |mu.w| off the support", np.abs(off).max(),
                               0.08 * fewer))  # fmt: skip
            out.append(at_most("H=3: |sum mu| / |mu|", zero_sum, 0.05))
    return out


def _inside(config: MultiTaskHeads) -> np.ndarray:
    """Whether a coordinate (second axis) belongs to a task."""
    supports = config.task.supports
    return np.array([[j in support for j in range(config.d)] for support in supports])


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
    plotting.stars(axes[0], known(REFERENCES, "multitask", config)["loss"], index=1,
                   label="earlier run")  # fmt: skip
    problem = (config.length, config.noise)
    for i, (name, level) in enumerate((
        ("tasks apart", theory.separated_task_risk(config.support, *problem)),
        ("one shared step", theory.shared_task_risk(config.support, config.d, *problem)),
    )):  # fmt: skip
        axes[0].axhline(level, color="black", ls=("--", ":")[i], lw=1, label=name)
    axes[0].set_xticks(config.heads)
    plotting.labels(axes[0], "heads $H$", r"loss $\mathcal{L}$ (every start)")
    for ax, part in zip(axes[1:], result.parts, strict=True):
        products, _ = geometry(part)
        image = plotting.heatmap(
            ax, products, title=rf"$\mu_n \cdot w_j$, $H={int(part['heads'])}$", limit=1
        )
        ax.set(yticks=(0, 1), xlabel="coordinate $j$", ylabel="task $n$")
    figure.colorbar(image, ax=axes[-1], shrink=0.6)
    return figure


EXPERIMENT = Experiment(
    entry("icl_linear.multitask"),
    MultiTaskHeads(),
    MultiTaskHeads(seeds=2, heads=(1, 3), prompts=3_000, iterations=60),
    measure,
    checks,
    draw,
    Tidy({"heads": "", "loss": "seed"}),
    more={
        "weights": Tidy({"heads": "", "diagonal": "seed head coordinate", "mu": "seed task head"})
    },
    work=lambda c: c.seeds * sum(c.heads) * c.iterations * c.prompts * c.length,
    points=lambda config: config.heads,
    revision=3,
)
