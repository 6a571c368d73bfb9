"""Attention over index lists: every query its own, or one for the members of a cluster."""

from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._checks import (
    cast_by_autocast,
    check_broadcasts,
    check_dropout,
    check_flag,
    check_float,
    check_number,
    check_options,
    check_qkv,
    check_scale,
    check_tensor,
    is_readable,
)
from .._dispatch import Backend, Operator, offer_of
from . import cpu, reference, triton_backend
from .call import ClusterScores, GatherCall
from .selection import scatter_mean, scatter_sum, top_positions

GATHER_ATTENTION = Operator(
    "gather_attention",
    Backend("cpu", offer_of(cpu.run, cpu.refuses, cpu.reluctant)),
    Backend(
        "triton",
        offer_of(triton_backend.run, triton_backend.refuses, triton_backend.reluctant),
    ),
    Backend("reference", offer_of(reference.run), plain=True),
)

__all__ = [
    "ClusterScores",
    "cluster_attention",
    "cluster_weights",
    "gather_attention",
    "gather_weights",
    "scatter_mean",
    "scatter_sum",
    "top_positions",
]


def gather_attention(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch heads keys dim"],
    v: Float[Tensor, "*batch heads keys v_dim"],
    index: Int[Tensor, "*batch heads queries picks"],
    *,
    bias: Float[Tensor, "..."] | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "*batch heads queries v_dim"]:
    r"""Softmax attention of every query over its own list of keys.

    A key named twice counts twice. A query whose list is empty gives 0.

    Args:
        q: queries.
        k: keys.
        v: values.
        index: for every head and query, positions of keys; -1 is none.
        bias: added to the scores, broadcastable to (*batch, heads, queries, picks); -inf forbids.
        scale: factor on the scores; 1/sqrt(dim) by default.
        dropout: probability with which each weight is zeroed (the rest scaled up). Always active.

    Returns:
        The heads' outputs, in the dtype of `q`; differentiable in every float argument.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: shapes, dtypes, devices or positions that do not fit, named with the rule.

    Source: Wei et al., 2023, "Sparsifiner: Learning Sparse Instance-Dependent Attention for
    Efficient Vision Transformers", arXiv 2303.13755, section 3.3.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 2, 4, 9, 8).unbind(0)
        >>> nearest = top_positions(q @ k.transpose(-1, -2), 3)
        >>> gather_attention(q, k, v, nearest).shape
        torch.Size([2, 4, 9, 8])
    """
    call = _check_gather(q, k, v, index, bias, scale, dropout)
    return GATHER_ATTENTION(call).squeeze(-2)


def gather_weights(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch heads keys dim"],
    index: Int[Tensor, "*batch heads queries picks"],
    *,
    bias: Float[Tensor, "..."] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "*batch heads queries keys"]:
    """The weights that `gather_attention` gives to every key, 0 to those not listed.

    Arguments and errors as there.

    Example:
        >>> import torch
        >>> q = torch.randn(1, 2, 3, 8)
        >>> gather_weights(q, q, torch.tensor([0, 2, -1]).expand(1, 2, 3, 3))[0, 0, 0, 1].item()
        0.0
    """
    call = _check_gather(q, k, k, index, bias, scale, 0.0)
    return spread(reference.weights(call).squeeze(-2), call.keys, k.shape[-2])


def cluster_attention(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch heads keys dim"],
    v: Float[Tensor, "*batch heads keys v_dim"],
    members: Int[Tensor, "*batch heads clusters members"],
    *,
    memory_v: Float[Tensor, "heads clusters memory v_dim"] | None = None,
    relative_v: Float[Tensor, "*heads apart v_dim"] | None = None,
    dropout: float = 0.0,
    **scores: Unpack[ClusterScores],
) -> Float[Tensor, "*batch heads clusters members v_dim"]:
    r"""Softmax attention among the members of each cluster.

    A token may be in any number of clusters; `scatter_mean` and `scatter_sum` bring the outputs
    back to the tokens.

    Args:
        q: queries.
        k: keys.
        v: values.
        members: for every head and cluster, positions of its queries, ascending.
        memory_v: values of `memory_k`.
        relative_v: added to the values, by ranks as `relative_k` to the keys.
        dropout: probability with which each weight is zeroed (the rest scaled up). Always active.
        scores: how the scores come about, see `ClusterScores`.

    Returns:
        The outputs of each cluster's members, in the dtype of `q`; differentiable in every float
        argument.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: shapes, dtypes, devices or positions that do not fit, named with the rule.

    Source: Roy et al., 2020, "Efficient Content-Based Sparse Attention with Routing Transformers",
    arXiv 2003.05997, section 4.1; relative tables: Shaw et al., 2018, arXiv 1803.02155, eqs. (3)
    and (4).

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 2, 4, 9, 8).unbind(0)
        >>> members = top_positions(torch.randn(2, 4, 3, 9), 5, ascending=True)
        >>> scatter_mean(cluster_attention(q, k, v, members, causal=True), members, 9).shape
        torch.Size([2, 4, 9, 8])
    """
    call = _check_clusters(q, k, v, members, scores, memory_v, relative_v, dropout)
    return GATHER_ATTENTION(call)


def cluster_weights(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch heads keys dim"],
    members: Int[Tensor, "*batch heads clusters members"],
    **scores: Unpack[ClusterScores],
) -> Float[Tensor, "*batch heads clusters members slots"]:
    """The weights of `cluster_attention`, over memory and then keys of each cluster.

    Arguments and errors as there.

    Example:
        >>> import torch
        >>> q = torch.randn(2, 4, 9, 8)
        >>> cluster_weights(q, q, torch.tensor([[0, 3], [5, 8]]).expand(2, 4, 2, 2)).shape
        torch.Size([2, 4, 2, 2, 2])
    """
    memory_v = scores.get("memory_k")
    return reference.weights(_check_clusters(q, k, k, members, scores, memory_v))


def spread(weights: Tensor, index: Tensor, keys: int) -> Tensor:
    """Weights on picks (..., picks) as weights on all keys (..., keys)."""
    dense = weights.new_zeros(*weights.shape[:-1], keys + 1)  # the last takes what is no key
    return dense.scatter_add(-1, index.long().remainder(keys + 1), weights)[..., :keys]


def to_tokens(
    weights: Tensor, members: Tensor, picks: Tensor, sizes: tuple[int, int], eps: float | None
) -> Tensor:
    """Weights of clusters as one matrix, (*batch, heads, queries, keys + clusters * memory).

    Its product with the values (and those of all memories below them) is what `scatter_mean`
    with `eps`, or `scatter_sum` for None, makes of the clusters' outputs.
    """
    queries, keys = sizes
    clusters, memory = members.shape[-2], weights.shape[-1] - picks.shape[-1]
    own = torch.arange(clusters * memory, device=picks.device).view(clusters, memory) + keys
    columns = torch.cat([own.expand(*picks.shape[:-1], memory), picks], -1)
    dense = spread(weights, columns[..., None, :].expand(weights.shape), keys + clusters * memory)
    if eps is None:
        return scatter_sum(dense, members, queries)
    return scatter_mean(dense, members, queries, eps)


def _check_gather(q, k, v, index, bias, scale, dropout) -> GatherCall:
    """Checks the arguments of `gather_attention` and returns the call in its normal form."""
    q, k, v = cast_by_autocast(q, k, v)
    _check_tokens(q, k, v)
    _check_index("index", index, q.shape[:-1], "(*batch, heads, queries, picks)", k)
    if bias is not None:
        check_float(bias=bias)
        check_broadcasts("bias", bias.shape, index.shape, "(*batch, heads, queries, picks)")
        bias = bias.expand(index.shape)[..., None, :]
    return GatherCall(
        q, k, v, None, index, None, bias, None, None, None, None, False, 0.0,
        check_scale(scale, q.shape[-1]), check_dropout(dropout),
    )  # fmt: skip


def _check_clusters(
    q: Tensor, k: Tensor, v: Tensor, members: Tensor, scores: ClusterScores,
    memory_v: Tensor | None, relative_v: Tensor | None = None, dropout: float = 0.0,
) -> GatherCall:  # fmt: skip
    """Checks the arguments of `cluster_attention` and returns the call in its normal form."""
    check_options("cluster_attention", scores, ClusterScores)
    memory_k, relative_k = scores.get("memory_k"), scores.get("relative_k")
    q, k, v, memory_k, memory_v, relative_k, relative_v = cast_by_autocast(
        q, k, v, memory_k, memory_v, relative_k, relative_v
    )
    _check_tokens(q, k, v)
    _check_index("members", members, q.shape[:-2], "(*batch, heads, clusters, members)", q, 0)
    keys = scores.get("key_members")
    keys = members if keys is None else keys
    _check_index("key_members", keys, members.shape[:-1], "(*batch, heads, clusters, picks)", k)
    check_float(q=q, memory_k=memory_k, memory_v=memory_v)
    check_float(q=q, relative_k=relative_k, relative_v=relative_v)
    if (memory_k is None) != (memory_v is None):
        raise ValueError("memory_k and memory_v must be given together")
    clusters, dims = tuple(members.shape[-3:-1]), (q.shape[-1], v.shape[-1])
    memory = 0
    if memory_k is not None and memory_v is not None:
        memory = memory_k.shape[-2] if memory_k.dim() == 4 else 0
        for name, x, dim in (("memory_k", memory_k, dims[0]), ("memory_v", memory_v, dims[1])):
            if tuple(x.shape) != (*clusters, memory, dim):
                raise ValueError(
                    f"{name} must be (heads, clusters, memory, dim), here "
                    f"({clusters[0]}, {clusters[1]}, memory, {dim}), got {tuple(x.shape)}"
                )
    key_mask, bias = scores.get("key_mask"), scores.get("bias")
    if key_mask is not None:
        check_tensor("key_mask", key_mask, like=k)
        if key_mask.dtype != torch.bool:
            raise TypeError(f"key_mask must be boolean (True = may be seen), got {key_mask.dtype}")
        expected = (*k.shape[:-3], k.shape[-2])
        if tuple(key_mask.shape) != expected:
            raise ValueError(f"key_mask must be {expected}, got {tuple(key_mask.shape)}")
    if bias is not None:
        check_float(bias=bias)
        full = (*members.shape, memory + keys.shape[-1])
        check_broadcasts("bias", bias.shape, full, "(*batch, heads, clusters, members, slots)")
    return GatherCall(
        q, k, v, members, keys, key_mask, bias, memory_k, memory_v,
        _relative("relative_k", relative_k, clusters[0], dims[0]),
        _relative("relative_v", relative_v, clusters[0], dims[1]),
        check_flag("causal", scores.get("causal", False)),
        check_number("self_bias", scores.get("self_bias", 0.0)),
        check_scale(scores.get("scale"), dims[0]), check_dropout(dropout),
    )  # fmt: skip


def _relative(name: str, table: Tensor | None, heads: int, dim: int) -> Tensor | None:
    """A relative table with its axis of heads, which may be 1."""
    if table is None:
        return None
    shape = tuple(table.shape)
    table = table[None] if table.dim() == 2 else table
    if (
        table.dim() != 3
        or table.shape[0] not in (1, heads)
        or table.shape[1] % 2 == 0
        or (table.shape[2] != dim)
    ):
        raise ValueError(
            f"{name} must be (2 reach + 1, {dim}) or ({heads}, 2 reach + 1, {dim}), got {shape}"
        )
    return table


def _check_tokens(q: Tensor, k: Tensor, v: Tensor) -> None:
    check_qkv(q, k, v)
    for name, x in (("k", k), ("v", v)):
        if x.shape[:-2] != q.shape[:-2]:
            raise ValueError(
                f"{name} has batch and heads {tuple(x.shape[:-2])}, q has {tuple(q.shape[:-2])}; "
                "they must agree"
            )


def _check_index(
    name: str, index: Tensor, lead: torch.Size, axes: str, tokens: Tensor, least: int = -1
) -> None:
    check_tensor(name, index)
    if index.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} must be int32 or int64, got {index.dtype}")
    if index.dim() != tokens.dim() or index.shape[: len(lead)] != lead:
        raise ValueError(f"{name} must be {axes} after {tuple(lead)}, got {tuple(index.shape)}")
    if index.device != tokens.device:
        raise ValueError(f"{name} is on {index.device}, q is on {tokens.device}; they must agree")
    if is_readable(index) and index.numel():
        low, high = index.aminmax()
        if low < least or high >= tokens.shape[-2]:
            raise ValueError(
                f"{name} must be in [{least}, {tokens.shape[-2]}), got values from {int(low)} to "
                f"{int(high)}"
            )
