"""A layer around short_attention: projection, residual, ReLU and layer norm with it."""

import math
from typing import get_args

from jaxtyping import Float
from torch import Tensor

from .._checks import (
    cast_by_autocast,
    check_dropout,
    check_flag,
    check_float,
    check_scale,
    check_tensor,
    is_integer,
)
from .._dispatch import Backend, Operator, offer_of
from .._short_attention.operator import SHORT_ATTENTION
from . import composed, cpu
from .call import Activation, Attend, BlockCall, Residual

SHORT_ATTENTION_BLOCK = Operator(
    "short_attention_block",
    Backend("cpu", offer_of(cpu.run, cpu.refuses)),
    Backend("composed", offer_of(composed.run), plain=True, parts=SHORT_ATTENTION),
)


def short_attention_block(
    x: Float[Tensor, "*batch tokens in_width"],
    weight: Float[Tensor, "parts_width in_width"],
    bias: Float[Tensor, " parts_width"] | None = None,
    gain: Float[Tensor, " width"] | None = None,
    shift: Float[Tensor, " width"] | None = None,
    *,
    heads: int,
    activation: Activation = "none",
    residual: Residual = "none",
    norm_first: bool = False,
    eps: float = 1e-5,
    scale: float | None = None,
    dropout: float = 0.0,
    attend: Attend | None = None,
) -> Float[Tensor, "*batch tokens width"]:
    r"""Self-attention of many small problems with all that surrounds it in a click model's layer.

    q, k, v and r are x W^T + b, and the block is norm(relu(softmax(scale * q k^T) v + r)). On a CPU
    one kernel in C does all of it, a few problems at a time while they are in the caches, and so
    does its backward; elsewhere it is made of `short_attention` and torch's operators.

    Args:
        x: the problems, 2 to 128 tokens each.
        weight: the maps of queries, keys and values stacked, and that of the residual where
            `residual` is "linear" or "linear_relu": 3 or 4 times `width` rows.
        bias: their biases.
        gain: of the layer norm; None leaves the norm out.
        shift: of the layer norm, with `gain`.
        heads: attention heads; they divide `width`.
        activation: what queries, keys and values pass.
        residual: r is nothing, x itself, a map of it, or the ReLU of a map.
        norm_first: whether the norm comes before the ReLU instead of after it.
        eps: added to the norm's variance.
        scale: factor on the scores; 1/sqrt(width / heads) by default.
        dropout: probability with which each attention weight is zeroed. Always active.
        attend: computes the heads (*batch, tokens, heads, dim) from q, k and v
            (*batch, heads, tokens, dim), for a layer that is being watched; `short_attention` by
            default.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: shapes, dtypes, devices or options that do not fit.

    Source: Song et al., 2019, "AutoInt: Automatic Feature Interaction Learning via Self-Attentive
    Neural Networks", arXiv 1810.11921, eq. (5) to (8), with the switches of its implementations.

    Example:
        >>> import torch
        >>> x, weight = torch.randn(100, 39, 16), torch.randn(4 * 32, 16)
        >>> short_attention_block(x, weight, heads=2, residual="linear").shape
        torch.Size([100, 39, 32])
    """
    x, weight, bias = cast_by_autocast(x, weight, bias)
    check_tensor("x", x)
    check_tensor("weight", weight)
    check_float(x=x, weight=weight, bias=bias)
    check_float(gain=gain, shift=shift)
    for name, value, kind in (
        ("activation", activation, Activation), ("residual", residual, Residual)
    ):  # fmt: skip
        if value not in get_args(kind):
            raise ValueError(f"{name} must be one of {get_args(kind)}, got {value!r}")
    if x.dim() < 2 or weight.dim() != 2 or weight.shape[1] != x.shape[-1]:
        raise ValueError(
            "x must be (*batch, tokens, in_width) and weight (parts * width, in_width), got "
            f"{tuple(x.shape)} and {tuple(weight.shape)}"
        )
    parts = 4 if residual.startswith("linear") else 3
    width, left = divmod(weight.shape[0], parts)
    if left or not is_integer(heads) or heads < 1 or width % heads:
        raise ValueError(
            f"weight of {weight.shape[0]} rows must hold {parts} maps (residual {residual!r}) of a "
            f"width divisible by heads {heads!r}"
        )
    if residual == "identity" and width != x.shape[-1]:
        raise ValueError(f"residual 'identity' needs width {width} = in_width {x.shape[-1]}")
    if (gain is None) != (shift is None):
        raise ValueError("gain and shift belong together; one of them is None")
    for name, vector, size in (
        ("bias", bias, weight.shape[0]), ("gain", gain, width), ("shift", shift, width)
    ):  # fmt: skip
        if vector is not None and vector.shape != (size,):
            raise ValueError(f"{name} must have shape ({size},), got {tuple(vector.shape)}")
    if not isinstance(eps, (int, float)) or not 0 <= eps < math.inf:
        raise ValueError(f"eps must be a finite number of at least 0, got {eps!r}")
    call = BlockCall(
        x, weight, bias, gain, shift, heads, activation, residual,
        check_flag("norm_first", norm_first), eps,
        check_scale(scale, width // heads), check_dropout(dropout), attend,
    )  # fmt: skip
    return SHORT_ATTENTION_BLOCK(call)
