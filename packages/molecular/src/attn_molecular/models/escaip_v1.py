"""EScAIP, first release: strict nearest neighbors, messages without edge features."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..attention import EdgeAttention
from ..graph import Batch, Graph, NearestNeighbors
from .angles import AngleScalar
from .config import BaseConfig
from .features import BondOrder
from .layers import EdgeAttributes, NodePair, Residual, Surroundings
from .network import Network
from .parts import Activated, FeedForward, make_norm


@dataclass(frozen=True)
class EScAIPV1Config(BaseConfig):
    """Settings of the first release.

    Args:
        neighbors: the most neighbors of an atom.
        strict: whether ties beyond the last neighbor are left out.
        angle: whether logits have the cosine between edges times a number per layer.
        stress: whether direct forces come with a stress head.

    Example:
        >>> EScAIPV1Config(dim=64, depth=2, heads=4).build().config.neighbors
        20
    """

    neighbors: int = 20
    strict: bool = True
    angle: bool = True
    stress: bool = False

    def build(self) -> "EScAIPV1":
        """The network, untrained."""
        return EScAIPV1(self)


class EScAIPV1(Network):
    """EScAIP as the paper was submitted with; the parameter counts it names are this one's.

    Its energy jumps wherever the list of nearest neighbors changes: use `EScAIP` for dynamics.

    Source: Qu and Krishnapriyan, 2024, "The Importance of Being Scalable", arXiv 2410.24169, and
        its authors' first release of the code.

    Example:
        >>> from ase.build import molecule
        >>> from attn_molecular import Batch
        >>> model = EScAIPV1Config(dim=32, depth=1, heads=2, distance_size=32).build().eval()
        >>> model(Batch.from_atoms([molecule("CH4")])).forces.shape
        torch.Size([5, 3])
    """

    config: EScAIPV1Config

    def __init__(self, c: EScAIPV1Config):
        super().__init__()
        self.config = c
        self.graph = NearestNeighbors(c.cutoff, c.neighbors, c.strict)
        direct = c.forces == "direct"
        self.order = BondOrder(c.order_size, smooth=False, unit_norm=False, floor=1e-10)
        self.input = InputBlock(c)
        last = c.depth - 1
        self.blocks = nn.ModuleList(
            Block(c, nodes_only=not direct and i == last) for i in range(c.depth)
        )
        self.readouts = nn.ModuleList(Readout(c) for _ in range(c.depth + 1))
        self.projection = OutputProjection(c)
        self.whole = None
        self.energy_head = Head(c)
        self.force_head = ForceHead(c) if direct else None
        self.stress_head = StressHead(c) if direct and c.stress else None
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.energy_head.out.weight, gain=0.01)

    @property
    def reduce(self) -> str:
        """The official gradient head always averages."""
        return self.config.energy_reduce if self.config.forces == "direct" else "mean"


def edge_mean(edges: Tensor, graph: Graph) -> Tensor:
    """Sums over edges divided by their number plus 1e-5."""
    return graph.sums(edges) / (graph.counts[:, None].to(edges.dtype) + 1e-5)


class InputBlock(nn.Module):
    """First features: h = attributes, edges h + FFN(norm(h)), nodes their mean."""

    def __init__(self, c: EScAIPV1Config):
        super().__init__()
        self.attributes = EdgeAttributes(c)
        self.norm = make_norm(c.norm, c.dim)
        self.ffn = FeedForward(c.dim, 1, c.activation, c.dropout)
        self.node_norm = make_norm(c.norm, c.dim)
        self.edge_norm = make_norm(c.norm, c.dim)

    def forward(self, s: Surroundings) -> tuple[Tensor, Tensor]:
        """Nodes (atoms, dim) and edges (edges, dim)."""
        h = self.attributes(s)
        edges = h + self.ffn(self.norm(h))
        return self.node_norm(edge_mean(edges, s.graph)), self.edge_norm(edges)


class Block(nn.Module):
    """Attention among messages of neighbors, then feed-forward networks of nodes and edges."""

    def __init__(self, c: EScAIPV1Config, nodes_only: bool):
        super().__init__()
        self.norm = make_norm(c.norm, c.dim)
        self.attributes = EdgeAttributes(c)
        self.nodes = NodePair(c)
        self.message = nn.Linear(2 * c.dim, c.dim)
        self.act = Activated(c.activation, c.dropout)
        self.q, self.k, self.v, self.out = (nn.Linear(c.dim, c.dim) for _ in range(4))
        self.attend = EdgeAttention(c.heads, (c.head_dim,), c.head_dim**-0.5, c.attention_dropout)
        self.angle = AngleScalar(1) if c.angle else None
        self.node_ffn = Residual(c, c.ffn_width)
        self.edge_ffn = Residual(c, c.ffn_width).requires_grad_(not nodes_only)
        self.nodes_only = nodes_only

    def forward(
        self, nodes: Tensor, edges: Tensor, s: Surroundings, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Nodes and edges to nodes and edges; the latter unchanged where nobody reads them."""
        graph = s.graph
        pair = self.nodes(self.norm(nodes), graph)
        message = self.act(self.message(torch.cat([self.attributes(s), pair], 1)))
        pair_bias = None
        if self.angle is not None:
            pair_bias = self.angle(graph).expand(-1, self.attend.num_heads, -1, -1)
        heads = self.attend(
            self.q(message), self.k(message), self.v(message), graph, None, pair_bias
        )
        update = self.out(heads.flatten(1))
        node_update, edge_keep = edge_mean(update, graph), None
        if keep is not None:
            edge_keep = keep[graph.center]
            node_update, update = node_update * keep, update * edge_keep
        nodes = self.node_ffn(graph.own(nodes) + node_update, keep)
        return nodes, edges if self.nodes_only else self.edge_ffn(edges + update, edge_keep)


class Readout(nn.Module):
    """x + FFN(norm(x)) of nodes and, for direct forces, edges."""

    def __init__(self, c: EScAIPV1Config):
        super().__init__()
        self.node = Residual(c, c.readout_width)
        self.edge = Residual(c, c.readout_width) if c.forces == "direct" else None

    def forward(self, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor | None]:
        """Nodes and edges."""
        return self.node(nodes), None if self.edge is None else self.edge(edges)


class OutputProjection(nn.Module):
    """norm(act(W norm([all readouts]) + b)) of nodes and edges."""

    def __init__(self, c: EScAIPV1Config):
        super().__init__()
        self.act = Activated(c.activation, c.dropout)
        wide = (c.depth + 1) * c.dim
        kinds = ["node", "edge"]
        self.readout_norm = nn.ModuleDict({kind: make_norm(c.norm, wide) for kind in kinds})
        self.linear = nn.ModuleDict({kind: nn.Linear(wide, c.dim) for kind in kinds})
        self.norm = nn.ModuleDict({kind: make_norm(c.norm, c.dim) for kind in kinds})
        # with gradient forces, the official edge projection exists but nobody reads it
        for part in (self.readout_norm, self.linear, self.norm):
            part["edge"].requires_grad_(c.forces == "direct")

    def forward(self, readouts: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
        """Nodes and edges."""
        nodes, edges = zip(*readouts, strict=True)
        last = self._one("node", torch.cat(nodes, 1))
        return last, None if edges[0] is None else self._one("edge", torch.cat(edges, 1))

    def _one(self, kind: str, x: Tensor) -> Tensor:
        return self.norm[kind](self.act(self.linear[kind](self.readout_norm[kind](x))))


class Head(nn.Module):
    """W (x + FFN(x))."""

    def __init__(self, c: EScAIPV1Config, outputs: int = 1):
        super().__init__()
        self.ffn = FeedForward(c.dim, c.output_width, c.activation, c.dropout)
        self.out = nn.Linear(c.dim, outputs, bias=False)

    def forward(self, x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows outputs"]:
        """The outputs of every row."""
        return self.out(x + self.ffn(x))


class ForceHead(nn.Module):
    """F_i = m_i sum_s V_is * direction_is, the direction from neighbor to center."""

    def __init__(self, c: EScAIPV1Config):
        super().__init__()
        self.direction = Head(c, 3)
        self.magnitude = Head(c)

    def forward(self, nodes: Tensor, edges: Tensor, graph: Graph) -> Float[Tensor, "atoms 3"]:
        """Forces on all atoms."""
        along = graph.direction
        if graph.featureless is not None:  # of a lonely atom it is +x by definition
            along = torch.where(graph.featureless[:, None], -along, along)
        return -self.magnitude(nodes) * graph.sums(self.direction(edges) * along)


class StressHead(nn.Module):
    """Isotropic and anisotropic parts of the stress: means over atoms.

    The anisotropic part is made of spherical harmonics of degree 2 in e3nn's order
    (xz, xy, y^2 - (x^2 + z^2) / 2, yz, (z^2 - x^2) / 2) and normalisation "integral".
    """

    def __init__(self, c: EScAIPV1Config):
        super().__init__()
        self.scalar = Head(c)
        self.rank2 = Head(c)

    def forward(
        self, nodes: Tensor, edges: Tensor, graph: Graph, batch: Batch
    ) -> tuple[Float[Tensor, "structures 3 3"], tuple[Tensor, Tensor]]:
        """The stress, and its isotropic (structures, 1) and anisotropic (structures, 5) parts."""
        harmonics = _degree_two(graph.direction.detach())
        tensor = edge_mean((harmonics[:, :, None] * edges[:, None]).flatten(1), graph)
        anisotropic = self.rank2(tensor.unflatten(1, (5, -1)))[..., 0]
        isotropic = self.scalar(nodes)
        parts = []
        for x in (isotropic, anisotropic):
            total = x.new_zeros(len(batch), x.shape[1]).index_add(0, batch.system, x)
            parts.append(total / batch.counts[:, None])
        return stress_from_parts(*parts), (parts[0], parts[1])


def _degree_two(direction: Tensor) -> Float[Tensor, "edges 5"]:
    x, y, z = direction.unbind(-1)
    root = 3**0.5
    values = [
        root * x * z, root * x * y, y * y - (x * x + z * z) / 2, root * y * z,
        root / 2 * (z * z - x * x),
    ]  # fmt: skip
    return (5 / (4 * torch.pi)) ** 0.5 * torch.stack(values, -1)


def stress_from_parts(
    isotropic: Float[Tensor, "structures 1"], anisotropic: Float[Tensor, "structures 5"]
) -> Float[Tensor, "structures 3 3"]:
    """The symmetric tensor with these components in e3nn's orthonormal basis (l = 0 and 2).

    Example:
        >>> stress_from_parts(torch.tensor([[3**0.5]]), torch.zeros(1, 5))[0].diagonal()
        tensor([1.0000, 1.0000, 1.0000])
    """
    xz, xy, yy, yz, zz = anisotropic.unbind(-1)
    iso = isotropic[:, 0] * 3**-0.5
    half = 2**-0.5
    low = yy * 6**-0.5
    rows = [
        iso - low - half * zz, half * xy, half * xz,
        half * xy, iso + 2 * low, half * yz,
        half * xz, half * yz, iso - low + half * zz,
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
