"""The base of every softmax attention layer: its taps and the way through them."""

from collections.abc import Sequence
from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import (
    attention,
    attention_weights,
    cluster_attention,
    cluster_weights,
    gather_attention,
    gather_weights,
    neighborhood_attention,
    neighborhood_weights,
    scatter_mean,
    scatter_sum,
)
from ..ops._attention.call import take_heads
from ..ops._checks import check_head_map
from ..ops._gather_attention.operator import ClusterScores, to_tokens
from ..ops._neighborhood_attention.operator import NeighborhoodScores, window_to_map
from ..taps import Tap


class AttentionLayer(nn.Module):
    """A layer that owns the taps `pattern` and `heads` and attends through them.

    `pattern` sees the weights (batch, heads, queries, keys) after the softmax and before dropout;
    it is computed only while something listens. `heads` sees every head's output (batch, queries,
    heads, dim) before the output projection.

    Example:
        >>> import torch
        >>> class Copycat(AttentionLayer):
        ...     def forward(self, x):
        ...         one_head = x[:, None]
        ...         return self.attend(one_head, one_head, one_head).flatten(2)
        >>> Copycat()(torch.randn(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self):
        super().__init__()
        self.pattern = Tap()
        self.heads = Tap()

    def attend(
        self,
        q: Float[Tensor, "*batch heads queries dim"],
        k: Float[Tensor, "*batch k_heads keys dim"],
        v: Float[Tensor, "*batch v_heads keys v_dim"],
        *,
        bias: Float[Tensor, "..."] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        lengths: Int[Tensor, "*batch"] | None = None,
        causal: bool = False,
        window: int | tuple[int, int] | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
        k_head_map: Sequence[int] | None = None,
        v_head_map: Sequence[int] | None = None,
        head_gate: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "*batch queries heads v_dim"]:
        """`core_attn.attention` through the taps, with the heads beside their features.

        Arguments and errors are those of `core_attn.attention`; `dropout` acts in training only.
        """
        dropout = dropout if self.training else 0.0
        if not self.pattern.listening:
            heads = attention(
                q, k, v, bias=bias, mask=mask, lengths=lengths, causal=causal, window=window,
                scale=scale, dropout=dropout, k_head_map=k_head_map, v_head_map=v_head_map,
                head_gate=head_gate,
            )  # fmt: skip
            return self.heads(heads.transpose(-2, -3))
        weights = attention_weights(
            q, k, bias=bias, mask=mask, lengths=lengths, causal=causal, window=window,
            scale=scale, k_head_map=k_head_map,
        )  # fmt: skip
        weights = F.dropout(self.pattern(weights), dropout)
        v = take_heads(v, check_head_map("v", v_head_map, q.shape[-3], v.shape[-3]))
        heads = (weights @ v).transpose(-2, -3)
        if head_gate is not None:
            shared = head_gate.dim() == q.dim() - 2
            heads = heads * (head_gate[..., None, :, None] if shared else head_gate[..., None])
        return self.heads(heads)

    def attend_gathered(
        self,
        q: Float[Tensor, "*batch heads queries dim"],
        k: Float[Tensor, "*batch heads keys dim"],
        v: Float[Tensor, "*batch heads keys v_dim"],
        index: Int[Tensor, "*batch heads queries picks"],
        *,
        bias: Float[Tensor, "..."] | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> Float[Tensor, "*batch queries heads v_dim"]:
        """`core_attn.gather_attention` through the taps, with the heads beside their features.

        Arguments and errors are those of the operator; `dropout` acts in training only. The tap
        `pattern` sees weights on all keys, 0 on those that were not listed.
        """
        dropout = dropout if self.training else 0.0
        if self.pattern.listening:
            weights = self.pattern(gather_weights(q, k, index, bias=bias, scale=scale))
            heads = F.dropout(weights, dropout) @ v
        else:
            heads = gather_attention(q, k, v, index, bias=bias, scale=scale, dropout=dropout)
        return self.heads(heads.transpose(-2, -3))

    def attend_clusters(
        self,
        q: Float[Tensor, "*batch heads queries dim"],
        k: Float[Tensor, "*batch heads keys dim"],
        v: Float[Tensor, "*batch heads keys v_dim"],
        members: Int[Tensor, "*batch heads clusters members"],
        *,
        mean_eps: float | None = None,
        memory_v: Float[Tensor, "heads clusters memory v_dim"] | None = None,
        relative_v: Float[Tensor, "*heads apart v_dim"] | None = None,
        dropout: float = 0.0,
        **scores: Unpack[ClusterScores],
    ) -> Float[Tensor, "*batch queries heads v_dim"]:
        """`core_attn.cluster_attention` through the taps, brought back to the tokens.

        Arguments and errors are those of the operator; `dropout` acts in training only. The tap
        `pattern` sees weights on all keys, then on the memory of the first cluster and so on.

        Args:
            mean_eps: a token's outputs are divided by the number of its clusters and this; None
                adds them up.

        Raises:
            ValueError: something listens to `pattern`, which cannot show `relative_v`.
        """
        dropout = dropout if self.training else 0.0
        tokens = q.shape[-2]
        if not self.pattern.listening:
            outputs = cluster_attention(
                q, k, v, members, memory_v=memory_v, relative_v=relative_v, dropout=dropout,
                **scores,
            )  # fmt: skip
            if mean_eps is None:
                return self.heads(scatter_sum(outputs, members, tokens).transpose(-2, -3))
            return self.heads(scatter_mean(outputs, members, tokens, mean_eps).transpose(-2, -3))
        if relative_v is not None:
            raise ValueError("relative_v adds to values by pairs of ranks: no pattern shows it")
        weights = cluster_weights(q, k, members, **scores)
        keys = scores.get("key_members")
        keys = members if keys is None else keys
        dense = to_tokens(weights, members, keys, (tokens, k.shape[-2]), mean_eps)
        if memory_v is not None:
            memory = memory_v.flatten(1, 2).expand(*v.shape[:-2], -1, -1)
            v = torch.cat([v, memory], -2)
        heads = F.dropout(self.pattern(dense), dropout) @ v
        return self.heads(heads.transpose(-2, -3))

    def attend_neighborhood(
        self,
        q: Float[Tensor, "*batch heads queries dim"],
        k: Float[Tensor, "*batch heads keys dim"],
        v: Float[Tensor, "*batch heads keys v_dim"],
        grid: tuple[int, ...],
        *,
        global_v: Float[Tensor, "*batch heads globals v_dim"] | None = None,
        added: Float[Tensor, "*batch heads queries slots"] | None = None,
        dropout: float = 0.0,
        **scores: Unpack[NeighborhoodScores],
    ) -> Float[Tensor, "*batch queries heads v_dim"]:
        """`core_attn.neighborhood_attention` through the taps, heads beside their features.

        Arguments and errors are those of the operator; `dropout` acts in training only. The tap
        `pattern` sees weights on all positions, then on global keys, without what is `added`.
        """
        dropout = dropout if self.training else 0.0
        if not self.pattern.listening:
            heads = neighborhood_attention(
                q, k, v, grid, global_v=global_v, added=added, dropout=dropout, **scores
            )
            return self.heads(heads.transpose(-2, -3))
        weights = F.dropout(self.pattern(neighborhood_weights(q, k, grid, **scores)), dropout)
        heads = weights @ (v if global_v is None else torch.cat([v, global_v], -2))
        if added is not None:
            heads = heads + window_to_map(added, grid, **scores) @ v
        return self.heads(heads.transpose(-2, -3))
