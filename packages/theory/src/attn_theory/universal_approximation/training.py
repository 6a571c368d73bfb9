"""Training of the same block, several seeds at once."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch.func import functional_call, stack_module_state, vmap

from core_attn import use_backend

from ..optimize import CosineAdam
from ..seeds import torch_generator
from .model import SingleLayerTransformer, TransformerConfig


def train(
    config: TransformerConfig,
    f: Callable[[Float[np.ndarray, "points tokens"]], Float[np.ndarray, "points tokens"]],
    *,
    seeds: int,
    first: int = 0,
    steps: int = 1500,
    batch: int = 512,
    lr: float = 1e-2,
    device: str = "cpu",
) -> list[SingleLayerTransformer]:
    """Trains one block per seed on uniform points with Adam and a cosine.

    The seeds' weights are stacked and stepped together; the loss is summed over them, so that
    each trains as if it were alone.

    Args:
        config: the shape.
        f: the target.
        seeds, first: how many, numbered from the first.
        steps, batch, lr: of the training.
        device: where.
    """
    models = []
    for seed in range(seeds):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(first + seed)
            models.append(SingleLayerTransformer(config).to(device))
    parameters, buffers = stack_module_state(models)
    adam = CosineAdam(parameters.values(), lr=lr, steps=steps)
    generator = torch_generator(first, f"approximation {config}")

    def single(weights: dict, x: torch.Tensor) -> torch.Tensor:
        return functional_call(models[0], (weights, buffers), (x,))

    step_all = vmap(partial(single))
    # The definition is plain torch, which vmap batches; fused kernels it would run in a loop.
    with use_backend("reference", "attention"):
        for _ in range(steps):
            x = torch.rand(seeds * batch, config.tokens, generator=generator)
            y = torch.from_numpy(f(x.numpy())).to(device, torch.float32)
            out = step_all(parameters, x.to(device).view(seeds, batch, -1))
            loss = (out - y.view(seeds, batch, -1)).square().mean((1, 2)).sum()
            adam.step(loss)
    for seed, model in enumerate(models):
        model.load_state_dict({name: value[seed].detach() for name, value in parameters.items()})
        model.cpu()
    return models
