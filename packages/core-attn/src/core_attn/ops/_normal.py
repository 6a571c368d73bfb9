"""One layout behind the door: all batch dimensions as one, planes and gates with all their axes."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Watch = Callable[[Tensor], Tensor]


def one_batch(x: Tensor, axes: int = 3) -> Tensor:
    """(*batch, ...) with `axes` last axes as (batch, ...)."""
    if x.dim() == axes + 1:
        return x
    batch = x.shape[: x.dim() - axes]
    return x.reshape(math.prod(batch), *x.shape[x.dim() - axes :])


def plane(x: Tensor | None, batch: tuple[int, ...]) -> Tensor | None:
    """`x`, which broadcasts to (*batch, heads, queries, keys), as four axes that do."""
    if x is None:
        return None
    if x.dim() == 4 and len(batch) == 1:
        return x
    x = x[(None,) * (len(batch) + 3 - x.dim())]
    if any(size != 1 for size in x.shape[:-3]):
        x = x.expand(*batch, *x.shape[-3:])
    return one_batch(x)


def wide(x: Tensor) -> torch.dtype:
    """The dtype in which scores of `x` are computed: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def narrowed(bias: Tensor, dtype: torch.dtype) -> Tensor:
    """The bias in a dtype of less range; what is finite stays so, for only -inf forbids."""
    if torch.promote_types(bias.dtype, dtype) == dtype:
        return bias.to(dtype)
    narrow = bias.to(dtype)
    lost = (narrow == -torch.inf) & (bias != -torch.inf)
    return narrow.masked_fill(lost, torch.finfo(dtype).min)


def gate(x: Tensor | None, batch: tuple[int, ...]) -> Tensor | None:
    """A gate (*batch, heads) or (*batch, queries, heads) as (batch, heads, 1 or queries)."""
    if x is None:
        return None
    x = x[..., None] if x.dim() == len(batch) + 1 else x.transpose(-1, -2)
    return one_batch(x, 2)


def watch(pattern: Watch | None, batch: tuple[int, ...]) -> Watch | None:
    """`pattern`, which takes (*batch, ...), as a function of (batch, ...)."""
    if pattern is None or len(batch) == 1:
        return pattern

    def watched(weights: Tensor) -> Tensor:
        seen = pattern(weights.reshape(*batch, *weights.shape[1:]))
        return seen.reshape(weights.shape)

    return watched


def nothing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The outputs for no tokens, on the graph of what they would be made of."""
    return ((q * k).sum(-1, keepdim=True) * v).to(q.dtype)


def restored(x: Tensor, batch: tuple[int, ...]) -> Tensor:
    """(batch, ...) as (*batch, ...)."""
    return x if len(batch) == 1 else x.reshape(*batch, *x.shape[1:])
