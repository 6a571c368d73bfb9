"""What attention logits know of the angles between edges besides frequencies."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core_attn import angle_legendre, dropout

from ..graph import Graph
from .config import BaseConfig
from .features import DistanceLinear
from .parts import Activated


class AngleScalar(nn.Module):
    """w_h cos(angle between edges), a number per head."""

    def __init__(self, heads: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads))

    def forward(self, graph: Graph) -> Float[Tensor, "atoms heads edges edges"]:
        """What is added to the logits."""
        cosine = angle_legendre(graph.padded(graph.direction), 2)[1]
        return self.weight[:, None, None] * cosine[:, None]


class AngleBias(nn.Module):
    """A linear map of (features of the angle) x (features of both distances).

    Args:
        c: the configuration.
        size: the highest Legendre polynomial.
        dim: features of an angle, and of a distance.
    """

    def __init__(self, c: BaseConfig, size: int, dim: int):
        super().__init__()
        self.degrees, self.dropout = size + 1, c.dropout
        self.distance = DistanceLinear(c.basis, c.distance_size, c.cutoff, dim)
        self.angle = nn.Linear(self.degrees, dim)
        self.out = nn.Linear(dim**3, c.heads)
        self.act = Activated(c.activation, c.dropout)

    def forward(self, graph: Graph) -> Float[Tensor, "atoms heads edges edges"]:
        """What is added to the logits."""
        direction = graph.padded(graph.direction)
        values = torch.stack(angle_legendre(direction, self.degrees, right_angle=True), -1)
        angle = self.act(self.angle(values))
        distance = graph.padded(self.act(self.distance(graph)))
        pair = distance[:, :, None] * distance[:, None]
        cube = angle[..., :, None, None] * pair[..., None, :, None] * pair[..., None, None, :]
        bias = self.out(cube.flatten(-3))
        bias = dropout(bias, self.dropout, self.training)
        return bias.permute(0, 3, 1, 2)
