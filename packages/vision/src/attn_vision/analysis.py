"""Numbers about attention over images."""

import torch
from jaxtyping import Float
from torch import Tensor


def distances(
    grid: tuple[int, int], device: torch.device | None = None
) -> Float[Tensor, "patches patches"]:
    """The distance between each two patches, in patches.

    Example:
        >>> distances((1, 3))[0]
        tensor([0., 1., 2.])
    """
    rows, columns = (torch.arange(side, dtype=torch.float32, device=device) for side in grid)
    place = torch.cartesian_prod(rows, columns)
    return (place[:, None] - place).square().sum(-1).sqrt()


def mean_distance(
    pattern: Float[Tensor, "batch heads tokens tokens"], grid: tuple[int, int], prefix: int = 0
) -> Float[Tensor, "batch heads patches"]:
    """How far each patch looks: the mean distance to the patches, by its weights.

    Args:
        pattern: attention weights; what goes to tokens without a patch counts as distance 0.
        grid: rows and columns of the patches.
        prefix: number of tokens without a patch, which stand first.

    Source: d'Ascoli et al., 2021, "ConViT", arXiv 2103.10697, eq. (8), for the non-locality.

    Example:
        >>> mean_distance(torch.full((1, 1, 3, 3), 1 / 3), (1, 3))
        tensor([[[1.0000, 0.6667, 1.0000]]])
    """
    among = pattern[..., prefix:, prefix:]
    return (among * distances(grid, pattern.device)).sum(-1)
