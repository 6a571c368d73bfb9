"""Attention among the edges of each atom."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from core_attn import AttentionLayer

from .angles import legendre
from .graph import Graph


class EdgeAttention(AttentionLayer):
    """Multi-head attention within each neighborhood, without projections.

    Channel c of a head belongs to a degree l(c), and
    logit_st = scale * sum_c P_l(c)(cos of the angle between edges s and t) q_sc k_tc + bias_t.

    Args:
        heads: number of heads.
        degrees: channels of a head for each l.
        scale: factor on the products.
        dropout: of weights, in training.
    """

    def __init__(self, heads: int, degrees: Sequence[int], scale: float, dropout: float = 0.0):
        super().__init__()
        self.num_heads, self.degrees = heads, tuple(degrees)
        self.scale, self.dropout = scale, dropout

    def forward(
        self,
        q: Float[Tensor, "asking dim"],
        k: Float[Tensor, "edges dim"],
        v: Float[Tensor, "edges dim"],
        graph: Graph,
        bias: Float[Tensor, " edges"] | None = None,
        pair_bias: Float[Tensor, "atoms heads edges edges"] | None = None,
        *,
        first_only: bool = False,
    ) -> Float[Tensor, "asking heads head_dim"]:
        """The heads' outputs for every edge, or for the first of each atom.

        Args:
            q: queries, of all edges or, if `first_only`, one per atom.
            k: keys.
            v: values.
            graph: the neighborhoods.
            bias: added to the logits of each key.
            pair_bias: added to those of each query and key.
            first_only: whether only each atom's first edge asks.
        """
        q, k, v = (x.unflatten(1, (self.num_heads, -1)) for x in (q, k, v))
        table = legendre(graph.padded(graph.direction), len(self.degrees))
        queries = q[:, :, None] if first_only else graph.padded(q).transpose(1, 2)
        keys, values = (graph.padded(x).transpose(1, 2) for x in (k, v))
        groups = zip(table, *(x.split(self.degrees, -1) for x in (queries, keys)), strict=True)
        rows = slice(0, 1) if first_only else slice(None)
        scores = sum(p[:, None, rows] * (a @ b.transpose(-1, -2)) for p, a, b in groups)
        zero = graph.distance.new_zeros(len(k)) if bias is None else bias
        scores = self.scale * scores + graph.padded(zero, -torch.inf)[:, None, None, :]
        if pair_bias is not None:
            scores = scores + pair_bias[:, :, rows]
        weights = self.pattern(scores.softmax(-1))
        weights = F.dropout(weights, self.dropout, self.training) if self.dropout else weights
        heads = (weights @ values).transpose(1, 2)
        return self.heads(heads[:, 0] if first_only else graph.packed(heads))
