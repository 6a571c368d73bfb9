"""Attention of the positions of a map over windows around them."""

import math
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import (
    cast_by_autocast,
    check_broadcasts,
    check_dropout,
    check_flag,
    check_float,
    check_options,
    check_scale,
    check_tensor,
)
from .._dispatch import Backend, Operator, offer_of
from .._gather_attention.cpu import reluctant
from .._gather_attention.operator import spread
from . import cpu, reference, triton_backend
from .call import Axis, NeighborhoodCall, NeighborhoodScores, Sizes, places

NEIGHBORHOOD_ATTENTION = Operator(
    "neighborhood_attention",
    Backend("cpu", offer_of(cpu.run, cpu.refuses, reluctant)),
    Backend(
        "triton",
        offer_of(triton_backend.run, triton_backend.refuses, triton_backend.reluctant),
    ),
    Backend("reference", offer_of(reference.run), plain=True),
)

__all__ = ["NeighborhoodScores", "neighborhood_attention", "neighborhood_weights", "window_to_map"]


def neighborhood_attention(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch heads keys dim"],
    v: Float[Tensor, "*batch heads keys v_dim"],
    grid: tuple[int, ...],
    *,
    global_v: Float[Tensor, "*batch heads globals v_dim"] | None = None,
    added: Float[Tensor, "*batch heads queries slots"] | None = None,
    dropout: float = 0.0,
    **scores: Unpack[NeighborhoodScores],
) -> Float[Tensor, "*batch heads queries v_dim"]:
    r"""Softmax attention of each query over the window around its block of the map.

    The map has one to three axes; tokens lie in raster order. Along each axis the queries of a
    block see the block and `halo` positions on each side. Windows stay where they are at the
    border and reach into padding; NATTEN's shift inward instead, so that they never pad and a
    query at the border sees as many keys as any.

    Args:
        q: queries, on a map of size / stride (rounded up) along each axis.
        k: keys, on the map.
        v: values, likewise.
        grid: sizes of the map.
        global_v: values of `global_k`.
        added: added to the weights of a query's window after the softmax and the dropout.
        dropout: probability with which each weight is zeroed (the rest scaled up). Always active.
        scores: windows and scores, see `NeighborhoodScores`.

    Returns:
        The heads' outputs, in the dtype of `q`; differentiable in every float argument.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: shapes, dtypes, devices or sizes that do not fit, named with the rule.

    Source: Vaswani et al., 2021, "Scaling Local Self-Attention for Parameter Efficient Visual
    Backbones", arXiv 2103.12731, section 2.2; Shi, 2024, "TransNeXt", arXiv 2311.17132, eqs. (1)
    to (6), for global keys and added weights.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 2, 4, 8 * 12, 16).unbind(0)
        >>> neighborhood_attention(q, k, v, (8, 12), block=4, halo=1).shape
        torch.Size([2, 4, 96, 16])
    """
    call = _check(q, k, v, grid, scores, global_v, added, dropout)
    return NEIGHBORHOOD_ATTENTION(call)


def neighborhood_weights(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch heads keys dim"],
    grid: tuple[int, ...],
    **scores: Unpack[NeighborhoodScores],
) -> Float[Tensor, "*batch heads queries seen"]:
    """The weights that `neighborhood_attention` gives to every position, then to global keys.

    Rows sum to less than 1 where padding takes its share. Arguments and errors as there.

    Example:
        >>> import torch
        >>> q = torch.randn(1, 2, 9, 8)
        >>> seen = neighborhood_weights(q, q, (9,), halo=1, mask_padding=True)[0, 0, 4] > 0
        >>> seen.nonzero().flatten().tolist()
        [3, 4, 5]
    """
    call = _check(q, k, k, grid, scores, scores.get("global_k"), None, 0.0)
    weights, (members, keys) = reference.weights(call), call.places()
    window, rest = weights.tensor_split([call.slots], -1)
    window = reference.in_order(_on_map(window, keys, k.shape[-2]), members, q.shape[-2])
    if call.global_k is None:
        return window
    return torch.cat([window, reference.in_order(rest, members, q.shape[-2])], -1)


def window_to_map(
    x: Float[Tensor, "*batch heads queries slots"],
    grid: tuple[int, ...],
    **scores: Unpack[NeighborhoodScores],
) -> Float[Tensor, "*batch heads queries keys"]:
    """Numbers per slot of each query's window as numbers per position, 0 elsewhere."""
    axes = _axes(grid, scores)
    members, keys = places(axes, x.device)
    window = reference.take(x, members.expand(*x.shape[:-2], -1, -1))
    return reference.in_order(_on_map(window, keys, math.prod(grid)), members, x.shape[-2])


def _on_map(window: Tensor, keys: Tensor, size: int) -> Tensor:
    return spread(window, keys[:, None].expand(window.shape), size)


def _check(
    q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...], scores: NeighborhoodScores,
    global_v: Tensor | None, added: Tensor | None, dropout: float,
) -> NeighborhoodCall:  # fmt: skip
    """Checks every argument and returns the call in its normal form."""
    check_options("neighborhood_attention", scores, NeighborhoodScores)
    if scores.get("halo") is None:
        raise TypeError("neighborhood_attention() needs halo, the reach of a window")
    global_k, global_bias = scores.get("global_k"), scores.get("global_bias")
    q, k, v, global_k, global_v, added = cast_by_autocast(q, k, v, global_k, global_v, added)
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_tensor(name, x)
    check_float(q=q, k=k, v=v, global_k=global_k, global_v=global_v, added=added)
    for name, x in (("q", q), ("k", k), ("v", v), ("global_k", global_k), ("global_v", global_v)):
        if x is None:
            continue
        if x.dim() < 3:
            raise ValueError(
                f"{name} must be (*batch, heads, tokens, dim), got shape {tuple(x.shape)}"
            )
        if x.shape[:-2] != q.shape[:-2]:
            raise ValueError(
                f"{name} has batch and heads {tuple(x.shape[:-2])}, q has {tuple(q.shape[:-2])}; "
                "they must agree"
            )
    heads, dim = q.shape[-3], q.shape[-1]
    axes = _axes(grid, scores)
    for name, x, sizes in (
        ("q", q, [axis.queries for axis in axes]),
        ("k", k, [axis.size for axis in axes]),
        ("v", v, [axis.size for axis in axes]),
    ):
        if x.shape[-2] != math.prod(sizes):
            shown = " x ".join(map(str, sizes))
            raise ValueError(f"{name} has {x.shape[-2]} tokens, its map has {shown}")
    if k.shape[-1] != dim:
        raise ValueError(f"k has head dim {k.shape[-1]}, q has {dim}; they must agree")
    if (global_k is None) != (global_v is None):
        raise ValueError("global_k and global_v must be given together")
    if global_k is not None and global_v is not None:
        expected = (*global_k.shape[:-1], v.shape[-1])
        if global_k.shape[-1] != dim or tuple(global_v.shape) != expected:
            raise ValueError(
                f"global_k and global_v must be (*batch, heads, globals, {dim}) and {expected}, "
                f"got {tuple(global_k.shape)} and {tuple(global_v.shape)}"
            )
    if global_bias is not None:
        if global_k is None:
            raise ValueError("global_bias needs global_k")
        check_float(global_bias=global_bias)
        full = (*q.shape[:-1], global_k.shape[-2])
        check_broadcasts(
            "global_bias", global_bias.shape, full, "(*batch, heads, queries, globals)"
        )
        global_bias = global_bias.expand(full)
    window = tuple(axis.window for axis in axes)
    if added is not None and tuple(added.shape) != (*q.shape[:-1], math.prod(window)):
        raise ValueError(
            f"added must be (*batch, heads, queries, slots) = {(*q.shape[:-1], math.prod(window))},"
            f" got {tuple(added.shape)}"
        )
    slot_bias = scores.get("slot_bias")
    if slot_bias is not None:
        check_float(slot_bias=slot_bias)
        if tuple(slot_bias.shape) not in (window, (heads, *window)):
            raise ValueError(
                f"slot_bias must be {window} or {(heads, *window)}, got {tuple(slot_bias.shape)}"
            )
        slot_bias = slot_bias.reshape(-1, math.prod(window))
    return NeighborhoodCall(
        q, k, v, axes, _tables(scores.get("relative"), axes, heads, dim), slot_bias, global_k,
        global_v, global_bias, added, check_flag("mask_padding", scores.get("mask_padding", False)),
        check_scale(scores.get("scale"), dim), check_dropout(dropout),
    )  # fmt: skip


def _axes(grid: tuple[int, ...], scores: NeighborhoodScores) -> tuple[Axis, ...]:
    if not 1 <= len(grid) <= 3 or min(grid) < 1:
        raise ValueError(f"grid must be one to three sizes of at least 1, got {tuple(grid)}")
    given: dict[str, Sizes] = {
        "block": scores.get("block", 1),
        "halo": scores["halo"],
        "dilation": scores.get("dilation", 1),
        "stride": scores.get("stride", 1),
    }
    numbers = {}
    for name, value in given.items():
        sizes = (value,) * len(grid) if isinstance(value, int) else tuple(value)
        least = 0 if name == "halo" else 1
        if len(sizes) != len(grid) or min(sizes) < least:
            raise ValueError(
                f"{name} must be a number of at least {least}, or one for each of the {len(grid)} "
                f"axes, got {value}"
            )
        numbers[name] = sizes
    axes = tuple(Axis(*sizes) for sizes in zip(grid, *numbers.values(), strict=True))
    for axis in axes:
        if axis.block % axis.stride and axis.stride % axis.block:
            raise ValueError(
                f"stride {axis.stride} must divide block {axis.block} or be a multiple of it"
            )
        if axis.dilation > 1 and axis.stride > 1 and axis.block > 1:
            raise ValueError(
                f"dilation {axis.dilation} and stride {axis.stride} go together with block 1 only, "
                f"got block {axis.block}"
            )
    return axes


def _tables(
    tables: tuple[Tensor, ...] | None, axes: tuple[Axis, ...], heads: int, dim: int
) -> tuple[Tensor, ...] | None:
    if tables is None:
        return None
    if len(tables) != len(axes):
        raise ValueError(f"relative must hold {len(axes)} tables, one per axis, got {len(tables)}")
    normal = []
    for axis, table in zip(axes, tables, strict=True):
        check_float(relative=table)
        rows = (2 * axis.window - 1, dim)
        if tuple(table.shape) not in (rows, (heads, *rows)):
            raise ValueError(
                f"relative must hold tables {rows} or {(heads, *rows)}, got {tuple(table.shape)}"
            )
        normal.append(table if table.dim() == 3 else table[None])
    return tuple(normal)
