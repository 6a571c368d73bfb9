"""What a neighborhood looks like to the network: distances and bond orders."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core_attn import angle_legendre

from ..graph import Graph
from ..kernels import band_product

Basis = Literal["gaussian", "sigmoid", "linear_sigmoid"]
BAND = 6.5  # standard deviations: a Gaussian is 7e-10 there


class BondOrder(nn.Module):
    """Bond-orientational order: the length of the mean spherical harmonics of each degree.

    By the addition theorem, sum_m |mean Y_lm|^2 (4 pi / (2l + 1)) is the mean of P_l over all
    pairs of edges: no harmonics are computed.

    Args:
        degrees: l = 0 to degrees - 1.
        smooth: whether edges weigh by their envelope, so that none leaves with a jump.
        unit_norm: whether lengths are divided by sqrt(2l + 1) (v2) or not (v1).
        floor: of the squared length: its square root is not differentiable at 0.
        rounding: lengths x become sqrt(x^2 + rounding^2), which has no kink at 0.

    Source: Qu and Krishnapriyan, 2024, arXiv 2410.24169, appendix, as in the official code;
        Steinhardt, Nelson and Ronchetti, 1983, Phys. Rev. B 28, 784.
    """

    def __init__(
        self, degrees: int, smooth: bool, unit_norm: bool, floor: float, rounding: float = 0.0
    ):
        super().__init__()
        self.degrees, self.smooth, self.unit_norm = degrees, smooth, unit_norm
        self.floor, self.rounding = floor, rounding

    def forward(self, graph: Graph) -> Float[Tensor, "atoms degrees"]:
        """The orders of every atom."""
        log_weight = graph.log_envelope if self.smooth else torch.zeros_like(graph.distance)
        weight = graph.padded(log_weight, -torch.inf).exp()
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
        table = angle_legendre(graph.padded(graph.direction), self.degrees)
        square = torch.stack([torch.einsum("ns,nst,nt->n", weight, p, weight) for p in table], 1)
        if not self.unit_norm:
            square = square * (2 * torch.arange(self.degrees, device=square.device) + 1)
        order = (square + self.rounding**2).clamp(min=self.floor).sqrt()
        if graph.featureless is None:
            return order
        return order.index_fill(0, graph.center[graph.featureless], 0.0)  # atoms without neighbors


class DistanceLinear(nn.Linear):
    """A linear map of a distance's expansion in `size` functions spaced evenly up to the cutoff.

    Of the Gaussians only those near the distance are computed and multiplied: beyond 6.5 of
    their standard deviations they are below 1e-9.

    Args:
        basis: gaussian exp(-((d - o) / 2D)^2 / 2), sigmoid 1 / (1 + exp(-2 (d - o) / D)), or
            linear_sigmoid, that plus 0.001 times its argument; D is the spacing of the offsets o.
        size: functions.
        cutoff: the last offset, in A.
        dim: outputs.

    Source: the official code's `smearing`.
    """

    def __init__(self, basis: Basis, size: int, cutoff: float, dim: int):
        super().__init__(size, dim)
        self.basis, self.cutoff = basis, cutoff
        self.step = cutoff / (size - 1)
        self.band = 2 * math.ceil(2 * BAND) + 1  # a standard deviation is two steps

    def expansion(self, distance: Float[Tensor, " edges"]) -> Float[Tensor, "edges size"]:
        """All functions at every distance."""
        offset = torch.linspace(0, self.cutoff, self.in_features, dtype=distance.dtype)
        apart = (distance[:, None] - offset.to(distance.device)) / self.step
        if self.basis == "gaussian":
            return torch.exp(-apart.square() / 8)
        if self.basis == "sigmoid":
            return torch.sigmoid(2 * apart)
        return torch.sigmoid(2 * apart) + 0.002 * apart

    def forward(self, graph: Graph) -> Float[Tensor, "edges dim"]:
        """W expansion + b; b alone for featureless edges."""
        if self.basis == "gaussian" and 2 * self.band < self.in_features:
            if graph.featureless is None:
                return self._banded(graph.distance) + self.bias
        expansion = self.expansion(graph.distance)
        if graph.featureless is not None:
            expansion = expansion.masked_fill(graph.featureless[:, None], 0.0)
        return nn.functional.linear(expansion, self.weight, self.bias)

    def _banded(self, distance: Float[Tensor, " edges"]) -> Float[Tensor, "edges dim"]:
        middle = (distance.detach() / self.step).round().long()
        first = (middle - self.band // 2).clamp(0, self.in_features - self.band)
        place = first[:, None] + torch.arange(self.band, device=distance.device)
        apart = distance[:, None] / self.step - place
        return band_product(torch.exp(-apart.square() / 8), self.weight.t(), first)
