"""The layers of EScAIP that stand around its attention."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..graph import Graph
from .config import BaseConfig
from .features import DistanceLinear
from .parts import Activated, FeedForward, make_norm


@dataclass(frozen=True)
class Surroundings:
    """What every layer reads of a batch besides nodes and edges.

    Attributes:
        graph: the neighborhoods, or a piece of them.
        numbers: (atoms) atomic numbers, of all atoms.
        order: (atoms, degrees) bond-orientational order, of all atoms.
    """

    graph: Graph
    numbers: Tensor
    order: Tensor


class EdgeAttributes(nn.Module):
    """act(W [distance | order_j | element_j | order_i | element_i] + b) of every edge i-j.

    What depends on one atom only is multiplied once per atom and then spread over its edges.
    """

    def __init__(self, c: BaseConfig):
        super().__init__()
        self.distance = DistanceLinear(c.basis, c.distance_size, c.cutoff, c.distance_dim)
        self.source_order = nn.Linear(c.order_size, c.order_dim)
        self.source_atom = nn.Embedding(c.elements, c.atom_dim)
        self.target_order = nn.Linear(c.order_size, c.order_dim)
        self.target_atom = nn.Embedding(c.elements, c.atom_dim)
        self.widths = [c.distance_dim, c.order_dim, c.atom_dim, c.order_dim, c.atom_dim]
        self.linear = nn.Linear(sum(self.widths), c.dim)
        self.act = Activated(c.activation, c.dropout)
        for embedding in (self.source_atom, self.target_atom):
            nn.init.uniform_(embedding.weight, -0.001, 0.001)

    def forward(self, s: Surroundings) -> Float[Tensor, "edges dim"]:
        """The attributes of all edges."""
        weights = self.linear.weight.split(self.widths, 1)
        distance = F.linear(self.act(self.distance(s.graph)), weights[0])
        source = F.linear(self.act(self.source_order(s.order)), weights[1])
        source = source + F.linear(self.source_atom.weight, weights[2])[s.numbers]
        order, numbers = s.graph.own(s.order), s.graph.own(s.numbers)
        target = F.linear(self.act(self.target_order(order)), weights[3], self.linear.bias)
        target = target + F.linear(self.target_atom.weight, weights[4])[numbers]
        return self.act(distance + source[s.graph.neighbor] + target[s.graph.center])


class NodePair(nn.Module):
    """act(W [n_j | n_i] + b) of every edge i-j, multiplied once per atom."""

    def __init__(self, c: BaseConfig):
        super().__init__()
        self.linear = nn.Linear(2 * c.dim, c.dim)
        self.act = Activated(c.activation, c.dropout)

    def forward(self, nodes: Float[Tensor, "atoms dim"], graph: Graph) -> Tensor:
        """The features of all edges."""
        of_neighbor, of_center = self.linear.weight.chunk(2, 1)
        neighbor = F.linear(nodes, of_neighbor)[graph.neighbor]
        center = F.linear(graph.own(nodes), of_center, self.linear.bias)[graph.center]
        return self.act(neighbor + center)


class Residual(nn.Module):
    """x + FFN(norm(x)).

    Args:
        c: the configuration.
        width: inner width of the network, in dim.
        dropout: within the network; None for that of hidden features.
    """

    def __init__(self, c: BaseConfig, width: int, dropout: float | None = None):
        super().__init__()
        self.norm = make_norm(c.norm, c.dim)
        dropout = c.dropout if dropout is None else dropout
        self.ffn = FeedForward(c.dim, width, c.activation, dropout)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(..., dim) to (..., dim); `keep` multiplies the branch of each row."""
        branch = self.ffn(self.norm(x))
        return x + (branch if keep is None else branch * keep)


def branch_keep(p: float, training: bool, system: Int[Tensor, " atoms"]) -> Tensor | None:
    """Stochastic depth: 0 or 1 / (1 - p) for each atom, alike for those of a structure."""
    if not p or not training:
        return None
    structures = int(system.max()) + 1
    kept = (torch.rand(structures, device=system.device) >= p).float() / (1 - p)
    return kept[system][:, None]
