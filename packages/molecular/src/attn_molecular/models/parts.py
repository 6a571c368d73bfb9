"""Activations, norms and feed-forward networks that both releases of EScAIP are made of."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import dropout

from ..kernels import rms_norm

Activation = Literal["gelu", "squared_relu", "star_relu", "smelu", "leaky_relu", "relu"]
Norm = Literal["rms", "layer", "none"]


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)^2."""
    return F.relu(x).square()


def star_relu(x: Tensor) -> Tensor:
    """0.8944 relu(x)^2 - 0.4472."""
    return 0.8944 * F.relu(x).square() - 0.4472


def smelu(x: Tensor) -> Tensor:
    """relu(x), but (x + 2)^2 / 8 within -2 and 2."""
    return torch.where(x.abs() <= 2, (x + 2).square() / 8, F.relu(x))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "squared_relu": squared_relu,
    "star_relu": star_relu,
    "smelu": smelu,
    "leaky_relu": F.leaky_relu,
    "relu": F.relu,
}


class RMSNorm(nn.RMSNorm):
    """torch's, with a kernel whose second derivative is one call."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (..., dim)."""
        return rms_norm(x, self.weight, torch.finfo(x.dtype).eps)


def make_norm(kind: Norm, dim: int) -> nn.Module:
    """RMSNorm with the smallest epsilon of the dtype, LayerNorm, or nothing."""
    if kind == "rms":
        return RMSNorm(dim)
    return nn.LayerNorm(dim) if kind == "layer" else nn.Identity()


class Activated(nn.Module):
    """act(x), then dropout."""

    def __init__(self, activation: Activation, dropout: float = 0.0):
        super().__init__()
        self.activation, self.dropout = ACTIVATIONS[activation], dropout

    def forward(self, x: Tensor) -> Tensor:
        """Applies both."""
        x = self.activation(x)
        return dropout(x, self.dropout, self.training)


class FeedForward(nn.Module):
    """W2 act(W1 x + b1) + b2, of inner width `width` times `dim`; one linear map for width 0."""

    def __init__(self, dim: int, width: int, activation: Activation, dropout: float):
        super().__init__()
        self.up = nn.Linear(dim, width * dim) if width else None
        self.down = nn.Linear(width * dim if width else dim, dim)
        self.act, self.dropout = Activated(activation, dropout), dropout

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        if self.up is not None:
            x = self.act(self.up(x))
        x = self.down(x)
        return dropout(x, self.dropout, self.training)
