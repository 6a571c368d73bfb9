"""Argument checks shared by the operators: errors name the argument, its value and the rule."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ._dispatch import autocasts

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.int32, torch.int64)


def check_tensor(name: str, x: Any, *, like: Tensor | None = None) -> None:
    """Requires a tensor, on the device of `like`.

    Raises:
        TypeError: it is something else.
        ValueError: it lies elsewhere.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if like is not None and x.device != like.device:
        raise ValueError(f"{name} is on {x.device}, q is on {like.device}; they must agree")


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
        check_tensor(name, x)
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


def autocast_dtype(x: Any) -> torch.dtype | None:
    """The dtype that autocast asks for on the device of `x`; None where it is off."""
    if not isinstance(x, Tensor):
        return None
    kind = x.device.type
    if autocasts(kind):
        return torch.get_autocast_dtype(kind)
    return None


def cast_by_autocast(*tensors: Any, widest: bool = False) -> tuple[Any, ...]:
    """The tensors as torch's own attention takes them under autocast; as they are without.

    Args:
        tensors: anything; floats other than float64 take autocast's dtype.
        widest: they take the widest of their dtypes instead, for what autocast keeps exact.
    """
    dtype = autocast_dtype(tensors[0])
    if dtype is None:
        return tensors
    floats = [x for x in tensors if isinstance(x, Tensor) and x.dtype in FLOATS]
    if widest:
        for x in floats:
            dtype = floats[0].dtype if x is floats[0] else torch.promote_types(dtype, x.dtype)
    elif any(x.dtype == torch.float64 for x in floats):
        return tensors
    return tuple(x.to(dtype) if isinstance(x, Tensor) and x.dtype in FLOATS else x for x in tensors)


def check_qkv(q: Tensor, k: Tensor, v: Tensor, **like_q: Tensor | None) -> None:
    """Requires (*batch, heads, tokens, dim) that fit one another, but for the numbers of heads.

    Args:
        q: queries.
        k: keys.
        v: values.
        like_q: more tensors of the dtype and on the device of `q`; None is skipped.

    Raises:
        TypeError: something is not a floating tensor.
        ValueError: shapes, dtypes or devices do not fit.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_tensor(name, x)
    check_float(q=q, k=k, v=v, **like_q)
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() < 3:
            raise ValueError(
                f"{name} must be (*batch, heads, tokens, dim), got shape {tuple(x.shape)}"
            )
    if k.shape[:-3] != q.shape[:-3] or v.shape[:-3] != q.shape[:-3]:
        raise ValueError(
            f"batch dimensions differ: q {tuple(q.shape[:-3])}, k {tuple(k.shape[:-3])}, "
            f"v {tuple(v.shape[:-3])}"
        )
    check_keys(q, k, v)


def check_keys(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Requires keys of q's last axis and as many values as keys.

    Raises:
        ValueError: they differ.
    """
    if k.shape[-1] != q.shape[-1]:
        raise ValueError(f"k has head dim {k.shape[-1]}, q has {q.shape[-1]}; they must agree")
    if v.shape[-2] != k.shape[-2]:
        raise ValueError(f"v has {v.shape[-2]} tokens, k has {k.shape[-2]}; they must agree")


def check_mask(name: str, mask: Any, target: Sequence[int], axes: str, like: Tensor) -> None:
    """Requires a boolean tensor that broadcasts to `target`, whose axes are called `axes`.

    Raises:
        TypeError: it is something else.
        ValueError: it does not broadcast, or lies on another device than `like`.
    """
    check_tensor(name, mask, like=like)
    if mask.dtype != torch.bool:
        raise TypeError(f"{name} must be boolean (True = may be seen), got {mask.dtype}")
    check_broadcasts(name, mask.shape, target, axes)


def check_bias(name: str, bias: Any, target: Sequence[int], axes: str, like: Tensor) -> None:
    """Requires a floating tensor, of any dtype, that broadcasts to `target`.

    Raises:
        TypeError: it is something else.
        ValueError: it does not broadcast, or lies on another device than `like`.
    """
    check_tensor(name, bias, like=like)
    check_float(**{name: bias})
    check_broadcasts(name, bias.shape, target, axes)


def check_index(
    name: str, index: Any, shape: Sequence[int | None], axes: str, like: Tensor
) -> Tensor:
    """Requires integers of a shape and returns them contiguous, as kernels read them.

    Args:
        name: of the argument.
        index: the argument.
        shape: the sizes of its axes; None is any.
        axes: what the axes are called.
        like: a tensor on the device where it must be.

    Raises:
        TypeError: it is not a tensor of int32 or int64.
        ValueError: its shape or device does not fit.
    """
    check_tensor(name, index, like=like)
    if index.dtype not in INTEGERS:
        raise TypeError(f"{name} must be int32 or int64, got {index.dtype}")
    fits = index.dim() == len(shape) and all(
        want is None or have == want for have, want in zip(index.shape, shape, strict=True)
    )
    if not fits:
        sizes = tuple("any" if size is None else size for size in shape)
        raise ValueError(f"{name} must have shape {axes} = {sizes}, got {tuple(index.shape)}")
    return index.contiguous()


def check_values(name: str, x: Tensor, low: int, high: int) -> None:
    """Requires values in [low, high], where they can be read.

    Raises:
        ValueError: one lies outside.
    """
    if is_readable(x) and x.numel():
        least, most = (int(value) for value in x.aminmax())
        if least < low or most > high:
            raise ValueError(
                f"{name} must be in [{low}, {high}], got values from {least} to {most}"
            )


def check_known(name: str, x: Tensor) -> None:
    """Requires values that are not NaN, where they can be read.

    Raises:
        ValueError: one is NaN.
    """
    if is_readable(x) and bool(x.isnan().any()):
        raise ValueError(f"{name} holds NaN")


def is_readable(x: Tensor) -> bool:
    """Whether reading values neither stalls a GPU nor breaks a trace or a transform."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(x)  # pyright: ignore


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


def check_options(operator: str, options: Mapping[str, Any], record: type[Any]) -> None:
    """Requires options that the typed record knows.

    Raises:
        TypeError: one is unknown, as a function without keywords of its own would say.
    """
    for name in options:
        if name not in record.__annotations__:
            raise TypeError(f"{operator}() got an unexpected keyword argument {name!r}")


def check_flag(name: str, flag: Any) -> bool:
    """Returns `flag`.

    Raises:
        TypeError: it is neither True nor False.
    """
    if not isinstance(flag, bool):
        raise TypeError(f"{name} must be True or False, got {flag!r}")
    return flag


def check_scale(scale: float | None, dim: int) -> float:
    """Returns the factor on the scores: `scale`, or 1/sqrt(dim) for None.

    Raises:
        ValueError: `scale` is not a finite number.
    """
    return max(dim, 1) ** -0.5 if scale is None else check_number("scale", scale)


def check_number(name: str, x: Any) -> float:
    """Returns `x`.

    Raises:
        ValueError: it is not a finite number.
    """
    if not isinstance(x, (int, float)) or not math.isfinite(x):
        raise ValueError(f"{name} must be a finite number, got {x!r}")
    return float(x)


def check_dropout(dropout: float) -> float:
    """Returns `dropout`.

    Raises:
        ValueError: it is not a probability below 1.
    """
    if not isinstance(dropout, (int, float)) or not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")
    return float(dropout)


def check_window(window: Any) -> tuple[int, int] | None:
    """Returns distances to the left and right; one number serves for both sides.

    Raises:
        TypeError: they are not integers.
        ValueError: they are not one or two, or negative.
    """
    if window is None:
        return None
    sides = tuple(window) if isinstance(window, (tuple, list)) else (window, window)
    if len(sides) != 2:
        raise ValueError(f"window must be one or two distances >= 0, got {window!r}")
    if not all(is_integer(side) for side in sides):
        raise TypeError(f"window must be one or two integers >= 0, got {window!r}")
    if min(sides) < 0:
        raise ValueError(f"window must be one or two distances >= 0, got {window!r}")
    return sides


def check_head_map(
    name: str, head_map: Sequence[int] | None, heads: int, stored: int
) -> tuple[int, ...] | None:
    """Returns, for each of `heads` query heads, its row among the `stored` ones; None = the same.

    Without a map, `stored` must divide `heads`, and consecutive heads share a row.

    Raises:
        TypeError: the map is not made of integers.
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
        return grouped(heads, stored)
    given: Any = head_map.tolist() if isinstance(head_map, Tensor) else head_map
    if not isinstance(given, Iterable) or not all(map(is_integer, mapped := tuple(given))):
        raise TypeError(f"{name}_head_map must be a sequence of integers, got {head_map!r}")
    if len(mapped) != heads:
        raise ValueError(f"{name}_head_map has {len(mapped)} entries, q has {heads} heads")
    for head in mapped:
        if not 0 <= head < stored:
            raise ValueError(f"{name}_head_map contains {head}; {name} has heads 0 to {stored - 1}")
    return None if mapped == tuple(range(stored)) else tuple(int(head) for head in mapped)


def grouped(heads: int, stored: int) -> tuple[int, ...]:
    """The map of consecutive query heads that share a stored one."""
    return tuple(head // (heads // stored) for head in range(heads))


def is_integer(x: Any) -> bool:
    """Whether `x` is a whole number of any type, but no flag and no tensor."""
    return hasattr(x, "__index__") and not isinstance(x, (bool, Tensor))
