"""EScAIP, second release: soft neighborhoods with self edges, frequencies in the attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..attention import EdgeAttention
from ..graph import Graph, SoftKNN
from .angles import AngleBias, AngleScalar
from .config import BaseConfig
from .features import BondOrder
from .layers import EdgeAttributes, NodePair, Residual, Surroundings
from .network import Network
from .parts import Activated, FeedForward, make_norm
from .whole import WholeReadout

DROPOUTS = (
    "node_ffn_dropout",
    "edge_ffn_dropout",
    "scalar_output_dropout",
    "vector_output_dropout",
)


@dataclass(frozen=True)
class EScAIPConfig(BaseConfig):
    """Settings of the second release.

    Args:
        neighbors: k of the soft nearest neighbors.
        soft: whether neighbors are ranked softly.
        low_memory: whether ranks are counted among the nearest only.
        sigmoid_scale: width of the soft ranks, in A.
        lse_scale: smoothness of the envelope.
        envelope: whether attention weights fade with the envelope.
        official_images: whether the official, quadratic set of images is searched.
        smooth_order: whether the bond order fades with the envelope too. The official code's does
            not, so that its energy jumps where a neighbor leaves; our gradient recipes set it.
        order_rounding: length below which a bond order is rounded off, as sqrt(x^2 + rounding^2).
            The official 0 leaves a kink where symmetry makes an order vanish, so that perfect
            crystals are too stiff against small displacements; our recipes for crystals set it.
        node_ffn_dropout: of the blocks' feed-forward networks of nodes, in training.
        edge_ffn_dropout: likewise of edges, and of the input's.
        scalar_output_dropout: likewise of the heads' for energies and magnitudes of forces.
        vector_output_dropout: likewise of the head's for directions of forces.
        frequencies: channels of a head for each degree l, which see P_l of the angle between
            edges; they sum to dim / heads. None for none.
        angle: what else the logits know of angles: nothing, their cosine times a number per head,
            or a learned function of angle and distances. With either, weights do not fade.
        angle_size: Legendre polynomials of the latter; must equal order_size.
        angle_dim: features it is made of.
        graph_attention: whether the node's update is a second, learned average over edges.
        message_gate: whether messages are a gated mixture.
        global_readout: whether the energy is read from sums (or means, by `energy_reduce`) of nodes
            over the structure instead of atom by atom; atoms' energies are equal shares then.

    Example:
        >>> model = EScAIPConfig(dim=64, depth=2, heads=4, frequencies=(6, 4, 3, 2, 1)).build()
        >>> type(model).__name__
        'EScAIP'
    """

    neighbors: int = 30
    soft: bool = True
    low_memory: bool = True
    sigmoid_scale: float = 0.2
    lse_scale: float = 0.1
    envelope: bool = True
    official_images: bool = False
    smooth_order: bool = False
    order_rounding: float = 0.0
    node_ffn_dropout: float = 0.0
    edge_ffn_dropout: float = 0.0
    scalar_output_dropout: float = 0.0
    vector_output_dropout: float = 0.0
    frequencies: Sequence[int] | None = (20, 10, 4, 10, 20)
    angle: Literal["none", "scalar", "bias"] = "none"
    angle_size: int = 10
    angle_dim: int = 8
    graph_attention: bool = False
    message_gate: bool = False
    global_readout: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.neighbors < 1:
            raise ValueError(f"neighbors must be at least 1, got {self.neighbors}")
        if not self.order_rounding >= 0:
            raise ValueError(f"order_rounding must not be negative, got {self.order_rounding}")
        if self.frequencies is not None and sum(self.frequencies) != self.head_dim:
            raise ValueError(
                f"frequencies {tuple(self.frequencies)} sum to {sum(self.frequencies)}, "
                f"which must be dim / heads = {self.head_dim}"
            )
        for name in DROPOUTS:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.angle not in ("none", "scalar", "bias"):
            raise ValueError(f"angle must be none, scalar or bias, got {self.angle!r}")
        if self.angle == "bias" and self.angle_size != self.order_size:
            raise ValueError(
                f"angle 'bias' needs angle_size = order_size, got {self.angle_size} and "
                f"{self.order_size}"
            )

    @property
    def fades(self) -> bool:
        """Whether attention weights follow the envelope."""
        return self.envelope and self.angle == "none"

    @property
    def reads_nodes(self) -> bool:
        """Whether a head reads the final features of nodes."""
        return self.forces == "direct" or not self.global_readout

    def build(self) -> "EScAIP":
        """The network, untrained."""
        return EScAIP(self)


class EScAIP(Network):
    """EScAIP as users install it today: gradient or direct forces, any cell.

    Source: Qu and Krishnapriyan, 2024, "The Importance of Being Scalable", arXiv 2410.24169, and
        its authors' second release of the code.

    Example:
        >>> from ase.build import molecule
        >>> from attn_molecular import Batch, create
        >>> model = create("escaip_tiny").eval()
        >>> seen = model(Batch.from_atoms([molecule("CH4")]))
        >>> seen.energy.shape, seen.forces.shape
        (torch.Size([1]), torch.Size([5, 3]))
    """

    config: EScAIPConfig

    def __init__(self, c: EScAIPConfig):
        super().__init__()
        self.config = c
        self.graph = SoftKNN(
            c.cutoff, c.neighbors, c.soft, c.low_memory, c.sigmoid_scale, c.lse_scale,
            c.envelope or c.smooth_order, c.official_images,
        )  # fmt: skip
        direct = c.forces == "direct"
        self.order = BondOrder(
            c.order_size, c.smooth_order, unit_norm=True, floor=1e-6, rounding=c.order_rounding
        )
        self.input = InputBlock(c)
        last = c.depth - 1
        self.blocks = nn.ModuleList(
            Block(c, nodes_only=not direct and i == last) for i in range(c.depth)
        )
        self.readouts = nn.ModuleList(Readout(c) for _ in range(c.depth + 1))
        self.projection = OutputProjection(c)
        self.whole = WholeReadout(c) if c.global_readout else None
        self.energy_head = EnergyHead(c)
        self.force_head = ForceHead(c) if direct else None
        self.stress_head = None
        self.apply(_zero_bias)
        for head in (self.energy_head, self.force_head):
            for layer in head.modules() if head is not None else ():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)


class InputBlock(nn.Module):
    """First features: h = norm(attributes), edges h + FFN(h), nodes those of the self edges."""

    def __init__(self, c: EScAIPConfig):
        super().__init__()
        self.attributes = EdgeAttributes(c)
        self.norm = make_norm(c.norm, c.dim)
        self.ffn = FeedForward(c.dim, 1, c.activation, c.edge_ffn_dropout)
        self.node_norm = make_norm(c.norm, c.dim)
        self.edge_norm = make_norm(c.norm, c.dim)

    def forward(self, s: Surroundings) -> tuple[Tensor, Tensor]:
        """Nodes (atoms, dim) and edges (edges, dim)."""
        h = self.norm(self.attributes(s))
        edges = h + self.ffn(h)
        return self.node_norm(edges[s.graph.first]), self.edge_norm(edges)


class Block(nn.Module):
    """Attention within each neighborhood, then feed-forward networks of nodes and edges.

    Args:
        c: the configuration.
        nodes_only: whether nobody reads the edges it would make.
    """

    def __init__(self, c: EScAIPConfig, nodes_only: bool):
        super().__init__()
        self.nodes_only = nodes_only
        self.node_norm = make_norm(c.norm, c.dim)
        self.edge_norm = make_norm(c.norm, c.dim)
        self.attention = NeighborhoodAttention(c, nodes_only)
        self.node_ffn = Residual(c, c.ffn_width, c.node_ffn_dropout)
        self.edge_ffn = None if nodes_only else Residual(c, c.ffn_width, c.edge_ffn_dropout)

    def forward(
        self, nodes: Tensor, edges: Tensor, s: Surroundings, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Nodes and edges to nodes and edges; the latter unchanged if `nodes_only`."""
        update, edge_update = self.attention(self.node_norm(nodes), self.edge_norm(edges), s)
        edge_keep = None
        if keep is not None:
            edge_keep = keep[s.graph.center]
            update = update * keep
            edge_update = None if edge_update is None else edge_update * edge_keep
        nodes = self.node_ffn(s.graph.own(nodes) + update, keep)
        if self.edge_ffn is not None and edge_update is not None:
            edges = self.edge_ffn(edges + edge_update, edge_keep)
        return nodes, edges


class NeighborhoodAttention(nn.Module):
    """Messages of edges attend to each other; the self edge's result updates the node."""

    def __init__(self, c: EScAIPConfig, nodes_only: bool):
        super().__init__()
        self.attributes = EdgeAttributes(c)
        self.attributes_norm = make_norm(c.norm, c.dim)
        self.nodes = NodePair(c)
        self.edges = nn.Linear(c.dim, c.dim)
        self.gated = c.message_gate
        if self.gated:
            self.gate = nn.Linear(2 * c.dim, c.dim)
            self.candidate = nn.Linear(2 * c.dim, c.dim)
        else:
            self.message = nn.Linear(3 * c.dim, c.dim)
        self.message_norm = make_norm(c.norm, c.dim)
        self.act = Activated(c.activation, c.dropout)
        self.message_act = Activated(c.activation)  # the official message is not dropped
        self.q, self.k, self.v, self.out = (nn.Linear(c.dim, c.dim) for _ in range(4))
        expanded = c.head_dim
        if c.frequencies is not None:
            wide = sum(r * (2 * degree + 1) for degree, r in enumerate(c.frequencies))
            expanded = -8 * (-wide // 8)  # the official code pads to a multiple of 8
        self.attend = EdgeAttention(
            c.heads, tuple(c.frequencies or (c.head_dim,)), expanded**-0.5, c.attention_dropout
        )
        self.fades = c.fades
        self.angle = None
        if c.angle == "scalar":
            self.angle = AngleScalar(c.heads)
        elif c.angle == "bias":
            self.angle = AngleBias(c, c.angle_size, c.angle_dim)
        self.weight = nn.Parameter(torch.empty(c.heads, c.head_dim)) if c.graph_attention else None
        if self.weight is not None:
            nn.init.xavier_uniform_(self.weight)
        self.first_only = nodes_only and self.weight is None

    def forward(
        self, nodes: Tensor, edges: Tensor, s: Surroundings
    ) -> tuple[Float[Tensor, "atoms dim"], Float[Tensor, "edges dim"] | None]:
        """Updates of nodes and of edges (None where only the former are made)."""
        graph = s.graph
        message = self._message(nodes, edges, s)
        asking = message[graph.first] if self.first_only else message
        bias = graph.log_envelope if self.fades else None
        pair_bias = None if self.angle is None else self.angle(graph)
        heads = self.attend(
            self.q(asking), self.k(message), self.v(message), graph, bias, pair_bias,
            first_only=self.first_only,
        )  # fmt: skip
        out = self.out(heads.flatten(1))
        if self.first_only:
            return out, None
        if self.weight is None:
            return out[graph.first], out
        return self._aggregate(out, self.weight, graph), out

    def _message(self, nodes: Tensor, edges: Tensor, s: Surroundings) -> Tensor:
        attributes = self.attributes_norm(self.attributes(s))
        pair = self.nodes(nodes, s.graph)
        edge = self.act(self.edges(edges))
        if self.gated:
            both = torch.cat([attributes, pair], 1)
            gate, candidate = torch.sigmoid(self.gate(both)), torch.tanh(self.candidate(both))
            return self.message_norm(gate * candidate + (1 - gate) * edge)
        return self.message_norm(
            self.message_act(self.message(torch.cat([attributes, edge, pair], 1)))
        )

    def _aggregate(self, out: Tensor, weight: Tensor, graph: Graph) -> Tensor:
        """sum_s alpha_s out_s per head, alpha = softmax of LeakyReLU(w . out_s) over the edges."""
        heads = out.unflatten(1, weight.shape)
        scores = F.leaky_relu((heads * weight).sum(-1), 0.2)
        alpha = graph.packed(graph.padded(scores, -torch.inf).softmax(1))
        return graph.sums(alpha[..., None] * heads).flatten(1)


class Readout(nn.Module):
    """x + FFN(norm(x)) of nodes and, where someone reads them, edges."""

    def __init__(self, c: EScAIPConfig):
        super().__init__()
        self.node = Residual(c, c.readout_width)
        self.edge = Residual(c, c.readout_width) if c.forces == "direct" else None
        self.node.requires_grad_(c.reads_nodes)

    def forward(self, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor | None]:
        """Nodes and edges."""
        return self.node(nodes), None if self.edge is None else self.edge(edges)


class OutputProjection(nn.Module):
    """norm(act(W [all readouts] + b)) of nodes and edges."""

    def __init__(self, c: EScAIPConfig):
        super().__init__()
        self.act = Activated(c.activation)
        kinds = ["node", "edge"] if c.forces == "direct" else ["node"]
        self.linear = nn.ModuleDict(
            {kind: nn.Linear((c.depth + 1) * c.dim, c.dim) for kind in kinds}
        )
        self.norm = nn.ModuleDict({kind: make_norm(c.norm, c.dim) for kind in kinds})
        for part in (self.linear, self.norm):
            part["node"].requires_grad_(c.reads_nodes)

    def forward(self, readouts: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
        """Nodes and edges."""
        nodes, edges = zip(*readouts, strict=True)
        last = self.norm["node"](self.act(self.linear["node"](torch.cat(nodes, 1))))
        if "edge" not in self.linear:
            return last, None
        return last, self.norm["edge"](self.act(self.linear["edge"](torch.cat(edges, 1))))


class Head(nn.Module):
    """w . FFN(norm(x))."""

    def __init__(self, c: EScAIPConfig, outputs: int):
        super().__init__()
        self.norm = make_norm(c.norm, c.dim)
        dropout = c.scalar_output_dropout if outputs == 1 else c.vector_output_dropout
        self.ffn = FeedForward(c.dim, c.output_width, c.activation, dropout)
        self.out = nn.Linear(c.dim, outputs, bias=False)

    def forward(self, x: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows outputs"]:
        """The outputs of every row."""
        return self.out(self.ffn(self.norm(x)))


class EnergyHead(Head):
    """An energy per atom; with gradient forces the official head has a norm but skips it."""

    def __init__(self, c: EScAIPConfig):
        super().__init__(c, 1)
        self.skips_norm = c.forces == "gradient"
        self.norm.requires_grad_(not self.skips_norm)

    def forward(self, x: Float[Tensor, "atoms dim"]) -> Float[Tensor, "atoms 1"]:
        """The energy of every atom."""
        return self.out(self.ffn(x if self.skips_norm else self.norm(x)))


class ForceHead(nn.Module):
    """F_i = m_i sum_s V_is * direction_is: a learned vector scales each direction by component."""

    def __init__(self, c: EScAIPConfig):
        super().__init__()
        self.direction = Head(c, 3)
        self.magnitude = Head(c, 1)

    def forward(self, nodes: Tensor, edges: Tensor, graph: Graph) -> Float[Tensor, "atoms 3"]:
        """Forces on all atoms."""
        return self.magnitude(nodes) * graph.sums(self.direction(edges) * graph.direction)


def _zero_bias(module: nn.Module) -> None:
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
