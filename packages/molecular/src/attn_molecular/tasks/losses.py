"""The losses and the schedule of both code lines."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def energy_loss(
    predicted: Float[Tensor, " structures"],
    target: Float[Tensor, " structures"],
    counts: Int[Tensor, " structures"] | None = None,
) -> Tensor:
    """Mean |error|, per atom where `counts` are given (v2).

    Structures without a target are left out.

    Example:
        >>> energy_loss(torch.tensor([1.0, 5.0]), torch.tensor([2.0, torch.nan])).item()
        1.0
    """
    error = predicted - target
    if counts is not None:
        error = error / counts
    known = target.isfinite()
    return error[known].abs().sum() / known.sum().clamp(min=1)


def force_loss(
    predicted: Float[Tensor, "atoms 3"],
    target: Float[Tensor, "atoms 3"],
    system: Int[Tensor, " atoms"] | None = None,
    free: Bool[Tensor, " atoms"] | None = None,
) -> Tensor:
    """Mean length of the error; with `system` (v2), the mean over structures of their means.

    Structures whose loss is exactly 0 do not count, as in the official code.

    Args:
        predicted: forces.
        target: forces; atoms without any are left out.
        system: the structure of each atom.
        free: which atoms count.

    Example:
        >>> force_loss(torch.zeros(2, 3), torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]])).item()
        3.0
    """
    known = target.isfinite().all(1)
    if free is not None:
        known = known & free
    error = (predicted - target)[known]
    length = torch.where((error == 0).all(1), 0.0, _norm(error))
    if system is None:
        return length.sum() / max(len(length), 1)
    structures = int(system.max()) + 1
    total = length.new_zeros(structures).index_add(0, system[known], length)
    count = torch.bincount(system[known], minlength=structures).clamp(min=1)
    means = total / count
    return means.sum() / (means > 0).sum().clamp(min=1)


def stress_loss(
    predicted: Float[Tensor, "structures 3 3"], target: Float[Tensor, "structures 3 3"]
) -> Tensor:
    """Mean |error| of the nine components of structures that have a target."""
    known = target.isfinite().all(-1).all(-1)
    return (predicted - target)[known].abs().sum() / (9 * known.sum()).clamp(min=1)


def lr_factor(step: int, warmup: int, total: int, floor: float, start: float = 0.2) -> float:
    """Linear from `start` to 1 over `warmup` steps, then a cosine of the whole run to `floor`.

    The cosine's phase counts from step 0, so that it sets in slightly below 1, as officially.

    Example:
        >>> [round(lr_factor(step, 2, 10, 0.0), 3) for step in (0, 1, 2, 10)]
        [0.2, 0.6, 1.0, 0.0]
    """
    if step <= warmup and warmup > 0:
        return start * (1 - step / warmup) + step / warmup
    if step >= total:
        return floor
    return floor + 0.5 * (1 - floor) * (1 + math.cos(math.pi * step / total))


def _norm(error: Tensor) -> Tensor:
    square = error.square().sum(1)
    return torch.where(square == 0, 1.0, square).sqrt()
