"""Attention whose scores are rectified and averaged instead of normalised."""

from jaxtyping import Float
from torch import Tensor

from .._checks import cast_by_autocast, check_qkv, check_scale
from .._dispatch import Backend, Operator, offer_of
from . import reference
from .reference import ReluCall

# Thousands of heads of 9 to 17 dimensions and one query: two batched products, no tile to fill.
RELU_ATTENTION = Operator(
    "relu_attention", Backend("reference", offer_of(reference.run), plain=True)
)


def relu_attention(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch k_heads keys dim"],
    v: Float[Tensor, "*batch k_heads keys v_dim"],
    *,
    scale: float | None = None,
) -> Float[Tensor, "*batch heads queries v_dim"]:
    r"""ReLU attention: scale * sum_i relu(<q, k_i>) v_i.

    Args:
        q: queries.
        k: keys; `k_heads` is `heads`, or 1 where all heads read the same keys and values.
        v: values, likewise.
        scale: factor on the outputs; 1 / keys by default, the mean over keys.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: shapes, dtypes or devices that do not fit, or there are no keys.

    Source: Fu et al., 2023, "What can a Single Attention Layer Learn?", arXiv 2307.11353.

    Example:
        >>> import torch
        >>> tokens = torch.randn(2, 1, 5, 3)
        >>> relu_attention(torch.randn(2, 40, 1, 3), tokens, tokens).shape
        torch.Size([2, 40, 1, 3])
    """
    q, k, v = cast_by_autocast(q, k, v)
    check_qkv(q, k, v)
    heads = q.shape[-3]
    if k.shape[-3] not in (1, heads) or v.shape[-3] != k.shape[-3]:
        raise ValueError(
            f"k and v must both have 1 or {heads} heads, got {k.shape[-3]} and {v.shape[-3]}"
        )
    keys = k.shape[-2]
    if keys == 0:
        raise ValueError("there must be at least 1 key, got 0")
    factor = 1 / keys if scale is None else check_scale(scale, 1)
    return RELU_ATTENTION(ReluCall(q, k, v, factor))
