"""Linear attention: causal with a state, and over all keys at once."""

from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import (
    cast_by_autocast,
    check_bias,
    check_float,
    check_keys,
    check_scale,
    check_tensor,
)
from .._dispatch import Backend, Operator, offer_of
from .._normal import restored
from .._recurrence.call import RecurrenceOptions, check
from .._recurrence.chunks import refuses, reluctant
from . import chunked, reference
from .reference import BidirectionalCall

LINEAR_ATTENTION = Operator(
    "linear_attention",
    Backend("chunked", offer_of(chunked.run, refuses, reluctant), plain=True),
    Backend("reference", offer_of(reference.run), plain=True),
)


BIDIRECTIONAL = Operator(
    "bidirectional_linear_attention",
    Backend("reference", offer_of(reference.bidirectional), plain=True),
)


def linear_attention(
    q: Float[Tensor, "*batch heads tokens dim"],
    k: Float[Tensor, "*batch heads tokens dim"],
    v: Float[Tensor, "*batch heads tokens v_dim"],
    **options: Unpack[RecurrenceOptions],
) -> tuple[Float[Tensor, "*batch heads tokens v_dim"], Float[Tensor, "*batch heads dim v_dim"]]:
    r"""Causal linear attention: S_t = decay_t S_{t-1} + beta_t k_t v_t^T, o_t = scale S_t^T q_t.

    Each token is written before its own query reads. Chunked and stepwise backends agree; a
    sequence cut in two, with the state handed on, gives the same as the whole.

    Args:
        q: queries; apply a feature map beforehand where there is one.
        k: keys, shaped as the queries.
        v: values.
        options: beta, decay, log_decay, state, scale: see `RecurrenceOptions`.

    Returns:
        The outputs in the dtype of `q`, and the state after the last token in at least float32;
        both differentiable, any number of times, in every float argument. Autocast changes nothing
        but that tensors of different dtypes are allowed.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: shapes, dtypes, devices or values that do not fit, named with the rule.

    Source: Katharopoulos et al., 2020, "Transformers are RNNs", arXiv 2006.16236, eqs. (18)-(20).

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 1, 2, 7, 4).unbind(0)
        >>> whole, _ = linear_attention(q, k, v)
        >>> _, state = linear_attention(q[..., :5, :], k[..., :5, :], v[..., :5, :])
        >>> rest, _ = linear_attention(q[..., 5:, :], k[..., 5:, :], v[..., 5:, :], state=state)
        >>> whole[..., 5:, :].allclose(rest, atol=1e-5)
        True
    """
    out, state = LINEAR_ATTENTION(check(q, k, v, **options))
    return restored(out, q.shape[:-3]), restored(state, q.shape[:-3])


def bidirectional_linear_attention(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch heads keys dim"],
    v: Float[Tensor, "*batch heads keys v_dim"],
    *,
    beta: Float[Tensor, "..."] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "*batch heads queries v_dim"]:
    r"""Linear attention of every query over all keys: scale * Q (K^T diag(beta) V).

    The product is taken in the cheaper of its two orders, so that neither many keys nor a large
    dimension is materialised as a square matrix when the other is small.

    Args:
        q: queries.
        k: keys; batch and head axes broadcast against those of `q`.
        v: values, likewise.
        beta: weight of each key, broadcastable to k's (*batch, heads, keys).
        scale: factor on the outputs; 1/sqrt(dim) by default.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: shapes, dtypes or devices that do not fit, named with the rule.

    Source: Katharopoulos et al., 2020, "Transformers are RNNs", arXiv 2006.16236, eq. (6).

    Example:
        >>> import torch
        >>> patterns = torch.randn(1, 3, 100).sign()
        >>> bidirectional_linear_attention(patterns, patterns, patterns, scale=1 / 100).shape
        torch.Size([1, 3, 100])
    """
    q, k, v = cast_by_autocast(q, k, v, widest=True)
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_tensor(name, x)
        if x.dim() < 2:
            raise ValueError(f"{name} must be (..., tokens, dim), got shape {tuple(x.shape)}")
    check_float(q=q, k=k, v=v)
    check_keys(q, k, v)
    try:
        torch.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v)))
    except RuntimeError:
        raise ValueError(
            f"batch and heads of q {tuple(q.shape[:-2])}, k {tuple(k.shape[:-2])} and "
            f"v {tuple(v.shape[:-2])} do not broadcast"
        ) from None
    factor = check_scale(scale, q.shape[-1])
    if beta is not None:
        check_bias("beta", beta, k.shape[:-1], "(*batch, heads, keys)", q)
        v = (v * beta.unsqueeze(-1)).to(v.dtype)
    return BIDIRECTIONAL(BidirectionalCall(q, k, v, factor))
