"""Argument checks shared by the operators: errors name the argument, its value and the rule."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_float(**tensors: Tensor | None) -> None:
    """Requires tensors of one floating dtype on one device; None is skipped.

    Raises:
        TypeError: something is not a tensor, or not a floating one.
        ValueError: dtypes or devices differ.
    """
    first_name = first = None
    for name, x in tensors.items():
        if x is None:
            continue
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
        if x.dtype not in FLOATS:
            raise TypeError(f"{name} must be float64, float32, bfloat16 or float16, got {x.dtype}")
        if first is None:
            first_name, first = first_name or name, x
        elif x.dtype != first.dtype:
            raise ValueError(
                f"{name} has dtype {x.dtype} but {first_name} has {first.dtype}; they must agree"
            )
        elif x.device != first.device:
            raise ValueError(
                f"{name} is on {x.device} but {first_name} is on {first.device}; they must agree"
            )


def check_broadcasts(name: str, shape: Sequence[int], target: Sequence[int], axes: str) -> None:
    """Requires that `shape` broadcasts to `target`, whose axes are called `axes`.

    Raises:
        ValueError: it does not.
    """
    fits = len(shape) <= len(target) and all(
        have in (1, want) for have, want in zip(reversed(shape), reversed(target), strict=False)
    )
    if not fits:
        raise ValueError(
            f"{name} of shape {tuple(shape)} does not broadcast to {axes} = {tuple(target)}"
        )


def check_scale(scale: float | None, dim: int) -> float:
    """Returns the factor on the scores: `scale`, or 1/sqrt(dim) for None.

    Raises:
        ValueError: `scale` is not a finite number.
    """
    if scale is None:
        return dim**-0.5
    if not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise ValueError(f"scale must be a finite number or None, got {scale!r}")
    return float(scale)


def check_dropout(dropout: float) -> float:
    """Returns `dropout`.

    Raises:
        ValueError: it is not a probability below 1.
    """
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")
    return float(dropout)


def check_head_map(
    name: str, head_map: Sequence[int] | None, heads: int, stored: int
) -> tuple[int, ...] | None:
    """Returns, for each of `heads` query heads, its row among the `stored` ones; None = the same.

    Without a map, `stored` must divide `heads`, and consecutive heads share a row.

    Raises:
        ValueError: the map has the wrong length or an index out of range, or none can be made.
    """
    if head_map is None:
        if stored == heads:
            return None
        if stored == 0 or heads % stored:
            raise ValueError(
                f"{name} has {stored} heads, which do not divide the {heads} heads of q; "
                f"give {name}_head_map"
            )
        return tuple(head // (heads // stored) for head in range(heads))
    mapped = tuple(int(head) for head in head_map)
    if len(mapped) != heads:
        raise ValueError(f"{name}_head_map has {len(mapped)} entries, q has {heads} heads")
    for head in mapped:
        if not 0 <= head < stored:
            raise ValueError(f"{name}_head_map contains {head}; {name} has heads 0 to {stored - 1}")
    return None if mapped == tuple(range(stored)) else mapped
