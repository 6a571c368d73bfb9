"""Learning curves: one Gram matrix per model serves every sample size, target and penalty."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..linalg import RidgeSystem
from ..seeds import torch_generator
from .data import Inputs, paper_targets, sphere
from .kernel import infinite_kernel
from .model import RandomFeatureAttention, RandomFeatureMLP, RFAConfig, check_memory, gram

PENALTIES = tuple(10.0**k for k in range(-7, -1))
VALIDATION, TEST = 500, 1000


def labelled(
    seed: int,
    d: int,
    keys: int,
    train: int,
    noise: float,
    *,
    rotated: bool = False,
    device: str = "cpu",
) -> tuple[Inputs, Float[Tensor, "samples targets"], Float[Tensor, "samples targets"], list[str]]:
    """Inputs, clean targets of unit variance, noisy labels and the targets' names.

    The last VALIDATION + TEST samples are for choosing the penalty and for testing.
    """
    generator = torch_generator(seed, f"sphere {d} {keys}", device)
    inputs = sphere(train + VALIDATION + TEST, keys, d, generator)
    targets = paper_targets(d, generator, rotated=rotated)
    many = sphere(50_000, keys, d, generator)
    clean = torch.stack([f(inputs) / f(many).std() for f in targets.values()], 1).double()
    drawn = torch.randn(clean.shape, generator=generator, dtype=torch.float64, device=device)
    return inputs, clean, clean + noise**0.5 * drawn, list(targets)


def build(
    name: str, seed: int, d: int, keys: int, heads: int, device: str
) -> RandomFeatureAttention | RandomFeatureMLP:
    """A model by its name: RFA, BRFA, or MLP with as many parameters."""
    generator = torch_generator(seed, f"frozen {name} {d} {heads}", device)
    if name == "MLP":
        return RandomFeatureMLP(d, keys, heads * (d + 1), generator)
    return RandomFeatureAttention(RFAConfig(d, heads, biased=name == "BRFA"), generator)


def test_errors(
    name: str,
    seed: int,
    *,
    d: int,
    keys: int,
    heads: int,
    sizes: tuple[int, ...],
    noise: float,
    rotated: bool = False,
    device: str = "cpu",
) -> Float[np.ndarray, "sizes targets"]:
    """Test error against the clean target for every sample size; NaN above what is feasible.

    The penalty is chosen per target on validation samples.

    Args:
        name: RFA, BRFA, MLP, or "kernel" for infinitely many heads of RFA.
        seed: of inputs, targets and frozen weights.
        d, keys, heads: shape.
        sizes: numbers of training samples, increasing; each set contains the one before.
        noise: variance of the label noise.
        rotated: whether the rotated targets are included.
        device: where.
    """
    largest = max(sizes)
    data = labelled(seed, d, keys, largest, noise, rotated=rotated, device=device)
    inputs, clean, noisy, _ = data
    held = slice(largest, None)
    if name == "kernel":
        full = infinite_kernel(inputs, inputs.rows(slice(largest)))
        return np.stack([_dual(full, clean, noisy, n, held) for n in sizes])
    model = build(name, seed, d, keys, heads, device)
    check_memory(largest + VALIDATION + TEST, model.parameters)
    dual = [n for n in sizes if n <= model.parameters]
    out = []
    if dual:
        rows = torch.cat((torch.arange(max(dual)), torch.arange(largest, len(noisy))))
        full = gram(model, inputs.rows(rows), max(dual))
        inside = slice(max(dual), None)
        out += [_dual(full, clean[rows], noisy[rows], n, inside) for n in dual]
    if len(dual) < len(sizes):
        f = torch.cat(list(model.chunks(inputs)), 1).double()
        for n in sizes[len(dual) :]:
            system = RidgeSystem(f[:n].T @ f[:n], f[:n].T @ noisy[:n], n)
            out.append(_choose(system.path(PENALTIES, f[held]), clean[held], noisy[held]))
    return np.stack(out)


def _dual(full: Tensor, clean: Tensor, noisy: Tensor, n: int, held: slice) -> np.ndarray:
    system = RidgeSystem(full[:n, :n], noisy[:n], n)
    return _choose(system.path(PENALTIES, full[held, :n]), clean[held], noisy[held])


def _choose(predicted: Tensor, clean: Tensor, noisy: Tensor) -> np.ndarray:
    """Test error of the penalty with the least validation error, per target."""
    validation = (predicted[:, :VALIDATION] - noisy[:VALIDATION]).square().mean(1)
    best = validation.nan_to_num(torch.inf).argmin(0)
    error = (predicted[:, VALIDATION:] - clean[VALIDATION:]).square().mean(1)
    return error.gather(0, best[None])[0].cpu().numpy()
