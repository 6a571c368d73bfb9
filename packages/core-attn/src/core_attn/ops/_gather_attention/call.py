"""The checked arguments of attention over index lists."""

from typing import NamedTuple, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class ClusterScores(TypedDict, total=False):
    """How the scores of `cluster_attention` come about; all may be left out.

    Attributes:
        key_members: for every head and cluster, positions of its keys, -1 is none; those of the
            queries by default.
        key_mask: True where a token may be seen.
        causal: forbid keys at later positions than the query's.
        self_bias: added to the score of a token for itself; -5e4 leaves it only if nothing else.
        bias: added to the scores, broadcastable to (*batch, heads, clusters, members, slots), with
            the slots of the memory before those of the keys; -inf forbids.
        memory_k: keys of each cluster that all its members see, before the others.
        relative_k: added to the keys, by the rank of the key minus that of the query in their
            cluster, clipped to the table, whose middle row is 0 apart; one table, or one per head.
        scale: factor on the scores; 1/sqrt(dim) by default.
    """

    key_members: Int[Tensor, "*batch heads clusters picks"] | None
    key_mask: Bool[Tensor, "*batch keys"] | None
    causal: bool
    self_bias: float
    bias: Float[Tensor, "..."] | None
    memory_k: Float[Tensor, "heads clusters memory dim"] | None
    relative_k: Float[Tensor, "*heads apart dim"] | None
    scale: float | None


class GatherCall(NamedTuple):
    """Arguments of `gather_attention` and `cluster_attention` in one normal form.

    A group is one list of keys with the queries that read it: a single query, or the members of a
    cluster. `queries` is None where group number c is query c; bias is (*batch, heads, groups,
    members, memory + picks) or broadcasts to it; memory and relative tables have a heads axis.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    queries: Tensor | None  # (*batch, heads, groups, members)
    keys: Tensor  # (*batch, heads, groups, picks); -1 is no key
    key_mask: Tensor | None  # (*batch, tokens)
    bias: Tensor | None
    memory_k: Tensor | None  # (heads, groups, memory, dim)
    memory_v: Tensor | None
    relative_k: Tensor | None  # (heads or 1, 2 reach + 1, dim)
    relative_v: Tensor | None
    causal: bool
    self_bias: float
    scale: float
    dropout: float

    @property
    def members(self) -> Tensor:
        """The queries of every group, (*batch, heads, groups, members)."""
        if self.queries is not None:
            return self.queries
        groups = torch.arange(self.q.shape[-2], device=self.q.device)
        return groups[:, None].expand(*self.q.shape[:-1], 1)

    @property
    def memory(self) -> int:
        """Memory slots of a group."""
        return 0 if self.memory_k is None else self.memory_k.shape[-2]
