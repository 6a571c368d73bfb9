"""Training of many seeds at once on fresh prompts."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..optimize import CosineAdam
from ..seeds import torch_generator
from .data import LinearRegression, MultiTask, Prompts
from .model import ICLConfig, Init, SeededLayers


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    The authors' own recipe is lr 1e-3, constant, 500,001 steps; a higher rate with a cosine
    reaches the same plateau in thousands.

    Attributes:
        steps, batch: of fresh prompts.
        lr: Adam's rate at the start.
        schedule: how it goes on.
        init: of the weights.
        log_every: steps between records of omega and mu.
    """

    steps: int = 3000
    batch: int = 256
    lr: float = 5e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    init: Init = "default"
    log_every: int = 50


@dataclass
class Trained:
    """Seeds trained together and what was logged on the way.

    Attributes:
        layers: the weights.
        steps: of the records.
        omega: mean of the first d diagonal entries of each KQ.
        mu: last entry of each OV.
        loss: training loss.
    """

    layers: SeededLayers
    steps: list[int] = field(default_factory=list)
    omega: list[Float[np.ndarray, "seeds heads"]] = field(default_factory=list)
    mu: list[Float[np.ndarray, "seeds heads"]] = field(default_factory=list)
    loss: list[Float[np.ndarray, " seeds"]] = field(default_factory=list)


def train(
    model: ICLConfig,
    task: LinearRegression | MultiTask,
    recipe: Recipe,
    *,
    seeds: int,
    device: str = "cpu",
    purpose: str = "icl",
    stream: int = 0,
    watch: Callable[[int, SeededLayers], None] = lambda step, layers: None,
) -> Trained:
    """Trains `seeds` models on their own prompts with one optimiser.

    Adam works entry by entry and the loss is summed over seeds, so every seed's training is
    independent of the others.

    Args:
        model: the shape.
        task: draws the prompts.
        recipe: steps, batch and optimiser.
        seeds: how many models.
        device: where.
        purpose: names the random numbers, with
        stream: of the base seed.
        watch: called with the step and the layers at every record.

    Example:
        >>> trained = train(ICLConfig(d=2, heads=4), LinearRegression(d=2, length=8),
        ...                 Recipe(steps=2, batch=4), seeds=3)
        >>> trained.layers.key_query().shape
        torch.Size([3, 4, 3, 3])
    """
    if model.heads == 2 and seeds == 1:
        warnings.warn(
            "two heads that start with the same sign stay at the single-head loss (about a third "
            "of all seeds); train several seeds",
            stacklevel=2,
        )
    weights = torch_generator(stream, f"{purpose} weights {model.heads}", device)
    prompts = torch_generator(stream, f"{purpose} prompts {model.heads}", device)
    layers = SeededLayers(model, seeds, init=recipe.init, generator=weights)
    adam = CosineAdam(
        layers.parameters(), lr=recipe.lr, steps=recipe.steps + 1,
        constant=recipe.schedule == "constant",
    )  # fmt: skip
    out = Trained(layers)
    for step in range(recipe.steps + 1):
        batch = task.sample(seeds, recipe.batch, generator=prompts)
        y = layers(batch.context, batch.query)
        loss = (y.squeeze(2) - batch.y_query).square().mean((1, 2))
        if step % recipe.log_every == 0 or step == recipe.steps:
            omega, mu = head_scalars(layers)
            out.steps.append(step)
            out.omega.append(omega)
            out.mu.append(mu)
            out.loss.append(loss.detach().cpu().numpy())
            watch(step, layers)
        adam.step(loss.sum())
    return out


@torch.no_grad()
def head_scalars(
    layers: SeededLayers,
) -> tuple[Float[np.ndarray, "seeds heads"], Float[np.ndarray, "seeds heads"]]:
    """omega and mu of every seed and head, the latter of the first output."""
    d = layers.config.d
    diagonal = layers.key_query().diagonal(dim1=-2, dim2=-1)[..., :d]
    return diagonal.mean(-1).cpu().numpy(), layers.output_value()[..., 0, d].cpu().numpy()


@torch.no_grad()
def test_errors(
    layers: SeededLayers,
    task: LinearRegression | MultiTask,
    prompts: int,
    generator: torch.Generator,
    baseline: Callable[[Prompts], Float[Tensor, " prompts"]],
    chunk: int = 2000,
) -> tuple[Float[Tensor, "seeds prompts"], Float[Tensor, " prompts"]]:
    """Squared errors of every seed, and of a baseline, on prompts that all share.

    Args:
        layers: the trained seeds.
        task: draws the prompts.
        prompts: how many.
        generator: of random numbers.
        baseline: predicts the label of a task with one.
        chunk: prompts at a time.
    """
    seeds, ours, theirs = len(layers.q), [], []
    for start in range(0, prompts, chunk):
        batch = task.sample(min(chunk, prompts - start), generator=generator)
        z, z_q = (t.expand(seeds, *t.shape) for t in (batch.context, batch.query))
        ours.append((layers(z, z_q).squeeze(2) - batch.y_query).square().mean(-1))
        theirs.append((baseline(batch) - batch.y_query[:, 0]).square())
    return torch.cat(ours, 1).double(), torch.cat(theirs).double()
