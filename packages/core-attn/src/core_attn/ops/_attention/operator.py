"""Softmax attention, its weights, and parts of them."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._checks import (
    check_broadcasts,
    check_dropout,
    check_float,
    check_head_map,
    check_scale,
)
from .._dispatch import Backend, dispatch
from . import reference, sdpa, short, triton_backend
from .call import AttentionCall

BACKENDS = (
    Backend("short", short.run, short.refuses),
    Backend("triton", triton_backend.run, triton_backend.refuses),
    Backend("sdpa", sdpa.run, sdpa.refuses),
    Backend("reference", reference.run, reference.refuses),
)


def attention(
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
) -> Float[Tensor, "*batch heads queries v_dim"]:
    r"""Softmax attention: gate * softmax(scale * q k^T + bias) v over the allowed keys.

    Query i stands at key position i + keys - queries, so the last query sees the last key; this
    is where `causal` and `window` count from. A query with no allowed key gives 0.

    Args:
        q: queries.
        k: keys; `k_heads` equals `heads`, divides it, or is resolved by `k_head_map`.
        v: values, likewise.
        bias: added to the scores, broadcastable to (*batch, heads, queries, keys); -inf forbids.
        mask: True where a query may see a key, broadcastable like `bias`.
        lengths: the number of valid keys of each batch entry; keys from there on are padding.
        causal: forbid keys after the query's position.
        window: keys at most this far to the left and right; one number serves for both sides.
        scale: factor on the scores; 1/sqrt(dim) by default.
        dropout: probability with which each weight is zeroed (the rest scaled up). Always active.
        k_head_map: for every query head, the key head it reads.
        v_head_map: for every query head, the value head it reads.
        head_gate: factor on each head's output, (*batch, heads) or (*batch, queries, heads).

    Returns:
        The heads' outputs, in the dtype of `q`; differentiable in every float argument.

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
    call = _check(
        q, k, v, bias, mask, lengths, causal, window, scale, dropout, k_head_map, v_head_map,
        head_gate,
    )  # fmt: skip
    return dispatch("attention", BACKENDS, call)


def attention_weights(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch k_heads keys dim"],
    *,
    bias: Float[Tensor, "..."] | None = None,
    mask: Bool[Tensor, "..."] | None = None,
    lengths: Int[Tensor, "*batch"] | None = None,
    causal: bool = False,
    window: int | tuple[int, int] | None = None,
    scale: float | None = None,
    k_head_map: Sequence[int] | None = None,
) -> Float[Tensor, "*batch heads queries keys"]:
    """The weights that `attention` gives to the values; arguments and errors as there.

    Each row sums to 1, or is 0 where the query has no allowed key.

    Example:
        >>> import torch
        >>> q = torch.randn(1, 2, 3, 8)
        >>> attention_weights(q, q).sum(-1).allclose(torch.ones(1, 2, 3))
        True
    """
    call = _check(q, k, k, bias, mask, lengths, causal, window, scale, 0.0, k_head_map, k_head_map)
    return reference.weights(call)


def attention_row(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch k_heads keys dim"],
    row: int,
    *,
    bias: Float[Tensor, "..."] | None = None,
    mask: Bool[Tensor, "..."] | None = None,
    lengths: Int[Tensor, "*batch"] | None = None,
    causal: bool = False,
    window: int | tuple[int, int] | None = None,
    scale: float | None = None,
    k_head_map: Sequence[int] | None = None,
) -> Float[Tensor, "*batch heads keys"]:
    """The weights of query number `row` alone, without computing the others.

    Arguments and errors as in `attention`; `row` may be negative, counting from the end.

    Example:
        >>> import torch
        >>> q = torch.randn(1, 2, 3, 8)
        >>> attention_row(q, q, 0).equal(attention_weights(q, q)[..., 0, :])
        True
    """
    call = _check(q, k, k, bias, mask, lengths, causal, window, scale, 0.0, k_head_map, k_head_map)
    queries = q.shape[-2]
    if not -queries <= row < queries:
        raise ValueError(f"row must be in [{-queries}, {queries}), got {row}")
    row %= queries
    return reference.weights(call, slice(row, row + 1)).squeeze(-2)


def attention_mean(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch k_heads keys dim"],
    over: Literal["heads", "queries"],
    *,
    keys: slice = slice(None),
    bias: Float[Tensor, "..."] | None = None,
    mask: Bool[Tensor, "..."] | None = None,
    lengths: Int[Tensor, "*batch"] | None = None,
    causal: bool = False,
    window: int | tuple[int, int] | None = None,
    scale: float | None = None,
    k_head_map: Sequence[int] | None = None,
) -> Float[Tensor, "..."]:
    """The weights averaged over heads or over queries, for a slice of the keys.

    The softmax runs over all keys; only the average is kept. The full matrix never exists: the
    queries are taken in chunks, recomputed in the backward pass.

    Args:
        q: queries.
        k: keys.
        over: "heads" gives (*batch, queries, kept keys), "queries" gives (*batch, heads, kept
            keys); queries without an allowed key count as zeros.
        keys: the keys whose weights are returned.

    The other arguments are those of `attention`.

    Raises:
        ValueError: `over` is something else, or as in `attention`.

    Example:
        >>> import torch
        >>> q = torch.randn(1, 2, 300, 8)
        >>> attention_mean(q, q, "queries", keys=slice(1, None)).shape
        torch.Size([1, 2, 299])
    """
    call = _check(q, k, k, bias, mask, lengths, causal, window, scale, 0.0, k_head_map, k_head_map)
    if over not in ("heads", "queries"):
        raise ValueError(f"over must be 'heads' or 'queries', got {over!r}")

    def part(start: int, stop: int) -> Tensor:
        chunk = reference.weights(call, slice(start, stop))[..., keys]
        return chunk.mean(-3) if over == "heads" else chunk.sum(-2) / q.shape[-2]

    step = 128
    starts = range(0, q.shape[-2], step)
    if len(starts) > 1 and torch.is_grad_enabled():
        parts = [checkpoint(part, i, i + step, use_reentrant=False) for i in starts]
    else:
        parts = [part(i, i + step) for i in starts]
    return torch.cat(parts, -2) if over == "heads" else torch.stack(parts).sum(0)


def _check(
    q, k, v, bias, mask, lengths, causal, window, scale, dropout=0.0, k_head_map=None,
    v_head_map=None, head_gate=None,
) -> AttentionCall:  # fmt: skip
    """Checks every argument and returns the call in its normal form."""
    check_float(q=q, k=k, v=v, head_gate=head_gate)
    check_float(bias=bias)
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() < 3:
            raise ValueError(
                f"{name} must be (*batch, heads, tokens, dim), got shape {tuple(x.shape)}"
            )
    *batch, heads, queries, dim = q.shape
    if k.shape[:-3] != q.shape[:-3] or v.shape[:-3] != q.shape[:-3]:
        raise ValueError(
            f"batch dimensions differ: q {tuple(q.shape[:-3])}, k {tuple(k.shape[:-3])}, "
            f"v {tuple(v.shape[:-3])}"
        )
    if k.shape[-1] != dim:
        raise ValueError(f"k has head dim {k.shape[-1]}, q has {dim}; they must agree")
    keys = k.shape[-2]
    if v.shape[-2] != keys:
        raise ValueError(f"v has {v.shape[-2]} tokens, k has {keys}; they must agree")
    full = (*batch, heads, queries, keys)
    if bias is not None:
        check_broadcasts("bias", bias.shape, full, "(*batch, heads, queries, keys)")
        if bias.device != q.device:
            raise ValueError(f"bias is on {bias.device}, q is on {q.device}; they must agree")
    if mask is not None:
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be boolean (True = may be seen), got {mask.dtype}")
        check_broadcasts("mask", mask.shape, full, "(*batch, heads, queries, keys)")
    if lengths is not None:
        _check_lengths(lengths, tuple(batch), keys)
    if window is not None:
        window = (window, window) if isinstance(window, int) else tuple(window)
        if len(window) != 2 or min(window) < 0:
            raise ValueError(f"window must be one or two distances >= 0, got {window!r}")
    if head_gate is not None and head_gate.shape not in ((*batch, heads), (*batch, queries, heads)):
        raise ValueError(
            f"head_gate must be (*batch, heads) = {(*batch, heads)} or (*batch, queries, heads) = "
            f"{(*batch, queries, heads)}, got {tuple(head_gate.shape)}"
        )
    return AttentionCall(
        q, k, v, _at_least_2d(bias), _at_least_2d(mask), lengths, causal, window,
        check_scale(scale, dim), check_dropout(dropout),
        check_head_map("k", k_head_map, heads, k.shape[-3]),
        check_head_map("v", v_head_map, heads, v.shape[-3]), head_gate,
    )  # fmt: skip


def _at_least_2d(x: Tensor | None) -> Tensor | None:
    return x if x is None or x.dim() >= 2 else x.expand(1, -1) if x.dim() else x[None, None]


def _check_lengths(lengths: Tensor, batch: tuple[int, ...], keys: int) -> None:
    if lengths.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"lengths must be int32 or int64, got {lengths.dtype}")
    if tuple(lengths.shape) != batch:
        raise ValueError(f"lengths must have shape {batch}, got {tuple(lengths.shape)}")
    # Reading values would stall a GPU and break a trace.
    if lengths.device.type == "cpu" and not torch.compiler.is_compiling() and lengths.numel():
        low, high = lengths.aminmax()
        if low < 0 or high > keys:
            raise ValueError(
                f"lengths must be in [0, {keys}], got values from {int(low)} to {int(high)}"
            )
