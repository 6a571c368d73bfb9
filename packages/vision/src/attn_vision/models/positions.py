"""Learned positions on another grid than the one they were learned on."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def resize_positions(
    positions: Float[Tensor, "1 tokens dim"],
    old: tuple[int, int],
    new: tuple[int, int],
    prefix: int = 0,
    *,
    antialias: bool,
) -> Float[Tensor, "1 new_tokens dim"]:
    """Resizes the patches' positions (bicubic, pixel centers kept); the prefix stays.

    Args:
        positions: of the prefix, then of the patches in raster order.
        old: rows and columns of the grid they belong to.
        new: rows and columns wanted.
        prefix: number of leading positions that belong to no patch.
        antialias: whether shrinking averages; timm's way, not that of the first official codes.

    Example:
        >>> resize_positions(torch.zeros(1, 17, 8), (4, 4), (2, 5), 1, antialias=True).shape
        torch.Size([1, 11, 8])
    """
    if old == new:
        return positions
    fixed, patches = positions[:, :prefix], positions[:, prefix:]
    maps = patches.float().transpose(1, 2).unflatten(2, old)
    maps = F.interpolate(maps, new, mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([fixed, maps.flatten(2).transpose(1, 2).to(positions.dtype)], 1)
