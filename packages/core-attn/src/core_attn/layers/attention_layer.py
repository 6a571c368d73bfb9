"""The base of every softmax attention layer: its taps and the way through them."""

from collections.abc import Callable
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..ops import (
    attention,
    cluster_attention,
    cluster_weights,
    gather_attention,
    gather_weights,
    neighborhood_attention,
    neighborhood_weights,
    scatter_mean,
    scatter_sum,
)
from ..ops import dropout as drop
from ..ops._attention.call import AttentionOptions
from ..ops._gather_attention.operator import ClusterScores, to_tokens
from ..ops._neighborhood_attention.operator import NeighborhoodScores, window_to_map
from ..taps import Tap


class AttendOptions(AttentionOptions, total=False):
    """The options of `attention` and those that other operators take from a layer.

    Attributes:
        offsets: where packed problems start, see `short_attention`.
    """

    offsets: Int[Tensor, " problems_and_one"] | None


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
        operator: Callable[..., Tensor] = attention,
        **options: Unpack[AttendOptions],
    ) -> Float[Tensor, "*tokens v_dim"]:
        """Attention through the taps, with the heads beside their features.

        Args:
            q: queries.
            k: keys.
            v: values.
            operator: called as `operator(q, k, v, **options)`; what else it needs is bound to it
                with `functools.partial`. Where something listens to the tap `pattern`, it is given
                the option `pattern` as well.
            options: those of the operator; `dropout` acts in training only. With `offsets` the
                problems are packed, and the heads are (total, heads, v_dim).

        Raises:
            TypeError: as the operator does.
            ValueError: as the operator does.
        """
        if not self.training and "dropout" in options:
            options["dropout"] = 0.0
        if self.pattern.listening:
            options["pattern"] = self.pattern
        heads = operator(q, k, v, **options)
        return self.heads(heads if options.get("offsets") is not None else heads.transpose(-2, -3))

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
            heads = drop(weights, dropout) @ v
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
        heads = drop(self.pattern(dense), dropout) @ v
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
        weights = drop(self.pattern(neighborhood_weights(q, k, grid, **scores)), dropout)
        heads = weights @ (v if global_v is None else torch.cat([v, global_v], -2))
        if added is not None:
            heads = heads + window_to_map(added, grid, **scores) @ v
        return self.heads(heads.transpose(-2, -3))
