"""Neighborhood attention on a CPU: its blocks are groups, its windows lists of keys."""

import functools

import torch
from torch import Tensor

from .._gather_attention.cpu import Arguments, attend, misfit
from .._normal import one_batch
from .._recompute import twice_differentiable
from .call import Axis, NeighborhoodCall, places
from .tensors import FLOATS, Tensors


def run(call: NeighborhoodCall) -> Tensor:
    """Brings the arguments to the form of the kernel of `gather_attention`."""
    q, k, v = (one_batch(x).float() for x in (call.q, call.k, call.v))
    queries, keys = _places(call.axes)
    tables = [x.float() for x in call.relative or ()]
    bias = None if call.slot_bias is None else call.slot_bias.float()
    out = attend(
        Arguments(
            q, k, v, queries, keys, *tables, *[None] * (3 - len(tables)), bias,  # pyright: ignore[reportCallIssue]
            [axis.window for axis in call.axes], [axis.members for axis in call.axes],  # pyright: ignore[reportCallIssue]
            call.mask_padding, False, False, 0.0, call.scale,  # pyright: ignore[reportCallIssue]
        )
    )  # fmt: skip
    out = out.reshape(*call.q.shape[:-1], v.shape[-1]).to(call.q.dtype)
    return twice_differentiable(
        out, "neighborhood_attention", Tensors.define, Tensors.of(call), FLOATS
    )


def refuses(call: NeighborhoodCall) -> str | None:
    """It takes windows without global keys or added weights, on a CPU with a C compiler."""
    for name in ("global_k", "added"):
        if getattr(call, name) is not None:
            return f"the kernel has no {name}"
    return misfit(call.q, call.v, call.dropout)


def _places(axes: tuple[Axis, ...]) -> tuple[Tensor, Tensor]:
    """Queries and keys of all blocks with axes for batch and heads."""
    if torch.compiler.is_compiling():
        queries, keys = places(axes, torch.device("cpu"))
    else:
        queries, keys = _kept_places(axes)
    return queries[None, None], keys[None, None]


@functools.lru_cache(64)
def _kept_places(axes: tuple[Axis, ...]) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        return places(axes, torch.device("cpu"))
