"""Softmax attention, its weights, and parts of them."""

from typing import Literal, NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._checks import (
    cast_by_autocast,
    check_bias,
    check_dropout,
    check_flag,
    check_head_map,
    check_index,
    check_mask,
    check_options,
    check_qkv,
    check_scale,
    check_values,
    check_window,
    is_integer,
)
from .._dispatch import Backend, Operator, offer_of
from .._normal import gate, narrowed, one_batch, plane, restored, watch, wide
from . import reference, sdpa, short, triton_backend
from .call import AttentionCall, AttentionOptions, WeightsOptions

ATTENTION = Operator(
    "attention",
    Backend("short", short.offer),
    Backend("triton", triton_backend.offer),
    Backend("sdpa", sdpa.offer),
    Backend("reference", offer_of(reference.run), plain=True),
)


def attention(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch k_heads keys dim"],
    v: Float[Tensor, "*batch v_heads keys v_dim"],
    **options: Unpack[AttentionOptions],
) -> Float[Tensor, "*batch heads queries v_dim"]:
    r"""Softmax attention: gate * softmax(scale * q k^T + bias) v over the allowed keys.

    Query i stands at key position i + keys - queries, so the last query sees the last key; this
    is where `causal` and `window` count from. A query with no allowed key gives 0.

    Args:
        q: queries.
        k: keys; `k_heads` equals `heads`, divides it, or is resolved by `k_head_map`.
        v: values, likewise.
        options: bias, mask, lengths, causal, window, scale, dropout, k_head_map, v_head_map,
            head_gate, pattern: see `AttentionOptions`.

    Returns:
        The heads' outputs, in the dtype of `q`, or that of autocast; differentiable in every float
        argument, any number of times.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: shapes, dtypes, devices, maps or numbers that do not fit, named with the rule.

    Source: Vaswani et al., 2017, "Attention Is All You Need", arXiv 1706.03762, eq. (1).

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 2, 4, 5, 8).unbind(0)
        >>> attention(q, k, v, causal=True).shape
        torch.Size([2, 4, 5, 8])
    """
    return restored(ATTENTION(check(q, k, v, **options)), q.shape[:-3])


def attention_weights(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch k_heads keys dim"],
    **options: Unpack[WeightsOptions],
) -> Float[Tensor, "*batch heads queries keys"]:
    """The weights that `attention` gives to the values; arguments and errors as there.

    Each row sums to 1, or is 0 where the query has no allowed key.

    Example:
        >>> import torch
        >>> q = torch.randn(1, 2, 3, 8)
        >>> attention_weights(q, q).sum(-1).allclose(torch.ones(1, 2, 3))
        True
    """
    return restored(WEIGHTS(_check_weights("attention_weights", q, k, options)), q.shape[:-3])


def attention_row(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch k_heads keys dim"],
    row: int,
    **options: Unpack[WeightsOptions],
) -> Float[Tensor, "*batch heads keys"]:
    """The weights of query number `row` alone, without computing the others.

    Arguments and errors as in `attention`; `row` may be negative, counting from the end.

    Example:
        >>> import torch
        >>> q = torch.randn(1, 2, 3, 8)
        >>> attention_row(q, q, 0).equal(attention_weights(q, q)[..., 0, :])
        True
    """
    call, queries = _check_weights("attention_row", q, k, options), q.shape[-2]
    if not is_integer(row) or not -queries <= row < queries:
        raise ValueError(f"row must be in [{-queries}, {queries}), got {row!r}")
    rows = slice(row % queries, row % queries + 1)
    return restored(WEIGHTS(call._replace(rows=rows)).squeeze(-2), q.shape[:-3])


def attention_mean(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch k_heads keys dim"],
    over: Literal["heads", "queries"],
    *,
    keys: slice = slice(None),
    **options: Unpack[WeightsOptions],
) -> Float[Tensor, "..."]:
    """The weights averaged over heads or over queries, for a slice of the keys.

    The softmax runs over all keys; only the average is kept. The full matrix never exists: the
    queries are taken in chunks, recomputed in the backward pass.

    Args:
        q: queries.
        k: keys.
        over: "heads" gives (*batch, queries, kept keys), "queries" gives (*batch, heads, kept
            keys); queries without an allowed key count as zeros, and so does having no query.
        keys: the keys whose weights are returned.
        options: what decides the weights, see `WeightsOptions`.

    Raises:
        ValueError: `over` is something else, or as in `attention`.

    Example:
        >>> import torch
        >>> q = torch.randn(1, 2, 300, 8)
        >>> attention_mean(q, q, "queries", keys=slice(1, None)).shape
        torch.Size([1, 2, 299])
    """
    call, queries = _check_weights("attention_mean", q, k, options), q.shape[-2]
    if over not in ("heads", "queries"):
        raise ValueError(f"over must be 'heads' or 'queries', got {over!r}")

    def part(start: int) -> Tensor:
        chunk = WEIGHTS(call._replace(rows=slice(start, start + STEP)))[..., keys]
        return chunk.mean(1) if over == "heads" else chunk.sum(2) / max(queries, 1)

    starts = range(0, max(queries, 1), STEP)
    if len(starts) > 1 and torch.is_grad_enabled():
        parts = [checkpoint(part, start, use_reentrant=False) for start in starts]
    else:
        parts = [part(start) for start in starts]
    mean = torch.cat(parts, 1) if over == "heads" else torch.stack(parts).sum(0)
    return restored(mean, q.shape[:-3])


STEP = 128


class RowsCall(NamedTuple):
    """The weights of some queries of a call."""

    q: Tensor
    call: AttentionCall
    rows: slice = slice(None)


WEIGHTS = Operator(
    "attention_weights",
    Backend("reference", offer_of(lambda x: reference.weights(x.call, x.rows)), plain=True),
)


def _check_weights(name: str, q: Tensor, k: Tensor, options: WeightsOptions) -> RowsCall:
    check_options(name, options, WeightsOptions)
    call = check(q, k, k, v_head_map=options.get("k_head_map"), **options)
    return RowsCall(call.q, call)


def check(
    q, k, v, *, bias=None, mask=None, lengths=None, causal=False, window=None, scale=None,
    dropout=0.0, k_head_map=None, v_head_map=None, head_gate=None, pattern=None,
) -> AttentionCall:  # fmt: skip
    """Checks every argument and returns the call in its normal form."""
    q, k, v, head_gate = cast_by_autocast(q, k, v, head_gate)
    check_qkv(q, k, v, head_gate=head_gate)
    heads, queries, dim = q.shape[-3:]
    batch, keys = tuple(q.shape[:-3]), k.shape[-2]
    full, axes = (*batch, heads, queries, keys), "(*batch, heads, queries, keys)"
    if bias is not None:
        check_bias("bias", bias, full, axes, q)
        bias = bias if bias.dtype != torch.float64 else narrowed(bias, wide(q))
    if mask is not None:
        check_mask("mask", mask, full, axes, q)
    if lengths is not None:
        lengths = check_index("lengths", lengths, batch, "(*batch,)", q)
        check_values("lengths", lengths, 0, keys)
        lengths = lengths.reshape(-1)
    if head_gate is not None and head_gate.shape not in ((*batch, heads), (*batch, queries, heads)):
        raise ValueError(
            f"head_gate must be (*batch, heads) = {(*batch, heads)} or (*batch, queries, heads) = "
            f"{(*batch, queries, heads)}, got {tuple(head_gate.shape)}"
        )
    return AttentionCall(
        one_batch(q), one_batch(k), one_batch(v), check_scale(scale, dim), plane(bias, batch),
        plane(mask, batch), lengths, check_flag("causal", causal), check_window(window),
        check_dropout(dropout), check_head_map("k", k_head_map, heads, k.shape[-3]),
        check_head_map("v", v_head_map, heads, v.shape[-3]), gate(head_gate, batch),
        watch(pattern, batch),
    )  # fmt: skip
