"""Attention among the edges of each atom, as a layer."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from core_attn import AttentionLayer, edge_attention

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
        pair_bias: Float[Tensor, "atoms heads slots slots"] | None = None,
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
        if graph.outside is not None and bias is None:
            bias = torch.zeros_like(graph.log_envelope).masked_fill(graph.outside, -float("inf"))
        operator = partial(
            edge_attention, direction=graph.direction, degrees=self.degrees, pair_bias=pair_bias,
            first_only=first_only, slots=graph.every,
        )  # fmt: skip
        return self.attend(
            q, k, v, operator=operator, offsets=graph.offsets, bias=bias, scale=self.scale,
            dropout=self.dropout,
        )  # fmt: skip
