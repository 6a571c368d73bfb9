"""Softmax attention for many small problems."""

from collections.abc import Callable
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import (
    cast_by_autocast,
    check_bias,
    check_dropout,
    check_float,
    check_index,
    check_mask,
    check_qkv,
    check_scale,
    check_tensor,
    is_readable,
)
from .._dispatch import Backend, Operator, offer_of
from .._normal import gate, narrowed, one_batch, plane, restored, watch, wide
from .._recompute import twice_differentiable
from . import padded
from .call import FLOATS, ShortCall, ShortOptions
from .kernels import KERNELS, Kernel


def _run(kernel: Kernel) -> Callable[[ShortCall], Tensor]:
    def run(call: ShortCall) -> Tensor:
        out = kernel.run(call)
        if kernel.twice or call.dropout:  # no second run would drop the same weights
            return out
        return twice_differentiable(out, "short_attention", padded.define, call, FLOATS)

    return run


SHORT_ATTENTION = Operator(
    "short_attention",
    *(Backend(x.name, offer_of(_run(x), x.cannot, x.reluctant)) for x in KERNELS),
    Backend("attention", offer_of(padded.run), plain=True, parts=padded.LONG),
    Backend("reference", offer_of(padded.define), plain=True),
)


def short_attention(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch heads keys dim"],
    v: Float[Tensor, "*batch heads keys v_dim"],
    **options: Unpack[ShortOptions],
) -> Float[Tensor, "*batch heads queries v_dim"]:
    r"""Attention over many problems of 2 to 128 tokens: gate * softmax(scale * q k^T + bias) v.

    The mathematics of `attention` for fields of a table, neighbours of an atom, windows of an
    image or key points of a body, each problem solved as a whole on chip. Problems of one size are
    padded tensors (*batch, heads, tokens, dim). Problems of various sizes can be packed instead:
    q, k and v are (total, heads, dim), the problems one after the other, and `offsets` says where
    each starts; (heads, total, dim) is taken, too, where only that fits the offsets and they are
    read. A query with no allowed key gives 0.

    On a CPU a kernel in C does the work. The compiler at hand (`cc`, or what the environment
    variable CC names) builds it at first use, in a second or two, into the user's cache folder;
    without one, or with CORE_ATTN_NATIVE=0, `attention` takes over.

    Args:
        q: queries; views such as a split of heads are read where they lie.
        k: keys, as many heads as `q`.
        v: values, as many tokens as `k`.
        options: bias, mask, offsets, longest, scale, dropout, head_gate, pattern: see
            `ShortOptions`.

    Returns:
        The heads' outputs, in the shape of `q` (with v's dim) and its dtype, or that of autocast;
        differentiable in every float argument, on a CPU twice in every backend.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: shapes, dtypes, devices, offsets or numbers that do not fit, named with the
            rule.

    Source: Vaswani et al., 2017, "Attention Is All You Need", arXiv 1706.03762, eq. (1).

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 100, 2, 18, 16).unbind(0)
        >>> short_attention(q, k, v, bias=torch.zeros(2, 18, 18)).shape
        torch.Size([100, 2, 18, 16])
        >>> q, k, v = torch.randn(3, 9, 2, 16).unbind(0)
        >>> short_attention(q, k, v, offsets=torch.tensor([0, 4, 9])).shape
        torch.Size([9, 2, 16])
    """
    if options.get("offsets") is None:
        call = _check_padded(q, k, v, **options)
        return restored(SHORT_ATTENTION(call), q.shape[:-3])
    if heads_first := _are_heads_first((q, k, v), options):
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    out = SHORT_ATTENTION(_check_packed(q, k, v, **options))[0]
    return out if heads_first else out.transpose(0, 1)


def _check_padded(
    q, k, v, *, bias=None, mask=None, offsets=None, longest=None, scale=None, dropout=0.0,
    head_gate=None, pattern=None,
) -> ShortCall:  # fmt: skip
    """Checks the arguments of padded problems and returns the call in its normal form."""
    if longest is not None:
        raise ValueError(f"longest is for packed problems, with offsets; got {longest!r}")
    q, k, v, head_gate = cast_by_autocast(q, k, v, head_gate)
    check_qkv(q, k, v, head_gate=head_gate)
    *batch, heads, queries, _ = q.shape
    _check_heads(q, k, v, (*batch, heads, k.shape[-2]))
    full, axes = (*batch, heads, queries, k.shape[-2]), "(*batch, heads, queries, keys)"
    if bias is not None:
        check_bias("bias", bias, full, axes, q)
        bias = bias if bias.dtype != torch.float64 else narrowed(bias, wide(q))
    if mask is not None:
        check_mask("mask", mask, full, axes, q)
    _check_gate(head_gate, (*batch, heads), (*batch, queries, heads))
    return ShortCall(
        one_batch(q), one_batch(k), one_batch(v), check_scale(scale, q.shape[-1]),
        max(queries, k.shape[-2]), plane(bias, tuple(batch)), plane(mask, tuple(batch)), None,
        check_dropout(dropout), gate(head_gate, tuple(batch)), watch(pattern, tuple(batch)),
    )  # fmt: skip


def _are_heads_first(qkv: tuple[Tensor, ...], options: ShortOptions) -> bool:
    """Whether packed tensors are (heads, total, dim); unsure, they are (total, heads, dim)."""
    offsets = options.get("offsets")
    if not all(isinstance(x, Tensor) and x.dim() == 3 for x in qkv):
        return False
    if not isinstance(offsets, Tensor) or offsets.dim() != 1 or offsets.shape[0] == 0:
        return False
    total, heads, _ = qkv[0].shape
    return total != heads and _is_read(offsets, options) and int(offsets[-1]) == heads


def _is_read(offsets: Tensor, options: ShortOptions) -> bool:
    """Whether the call reads the offsets: on a GPU only to learn what nothing else tells."""
    if offsets.device.type == "cpu" or torch.compiler.is_compiling():
        return is_readable(offsets)
    return all(options.get(name) is None for name in ("longest", "bias", "mask"))


def _check_packed(
    q, k, v, *, offsets, longest=None, bias=None, mask=None, scale=None, dropout=0.0,
    head_gate=None, pattern=None,
) -> ShortCall:  # fmt: skip
    """Checks the arguments of packed problems and returns the call in its normal form."""
    q, k, v, head_gate = cast_by_autocast(q, k, v, head_gate)
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_tensor(name, x)
        if x.dim() != 3:
            raise ValueError(f"{name} must be (total, heads, dim), got shape {tuple(x.shape)}")
    check_float(q=q, k=k, v=v, head_gate=head_gate)
    if k.shape[-1] != q.shape[-1]:
        raise ValueError(f"k has head dim {k.shape[-1]}, q has {q.shape[-1]}; they must agree")
    total, heads, _ = q.shape
    _check_heads(q, k, v, (total, heads))
    offsets = _check_offsets(offsets, q)
    problems = offsets.shape[0] - 1
    for name, x in (("bias", bias), ("mask", mask)):
        if x is not None:
            check_tensor(name, x, like=q)
    longest = _longest(offsets, longest, bias, mask)
    full = (problems, heads, longest or 0, longest or 0)  # unknown where nothing has to fit
    axes = "(problems, heads, queries, keys)"
    if bias is not None:
        check_bias("bias", bias, full, axes, q)
        bias = bias if bias.dtype != torch.float64 else narrowed(bias, wide(q))
    if mask is not None:
        check_mask("mask", mask, full, axes, q)
    _check_gate(head_gate, (problems, heads), (total, heads))
    if head_gate is not None:
        per_token = head_gate.shape[0] == total
        head_gate = head_gate.transpose(0, 1)[None] if per_token else head_gate[..., None]
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return ShortCall(
        q, k, v, check_scale(scale, q.shape[-1]), longest, plane(bias, (problems,)),
        plane(mask, (problems,)), offsets, check_dropout(dropout), head_gate, pattern,
    )  # fmt: skip


def _check_heads(q: Tensor, k: Tensor, v: Tensor, like: tuple[int, ...]) -> None:
    for name, x in (("k", k), ("v", v)):
        if tuple(x.shape[:-1]) != like:
            raise ValueError(
                f"{name} must have shape {(*like, 'dim')} beside q of {tuple(q.shape)}, "
                f"got {tuple(x.shape)}"
            )


def _check_gate(
    head_gate: Tensor | None, shared: tuple[int, ...], per_query: tuple[int, ...]
) -> None:
    if head_gate is not None and tuple(head_gate.shape) not in (shared, per_query):
        raise ValueError(
            f"head_gate must have shape {shared} (one factor per problem and head) or "
            f"{per_query} (per query), got {tuple(head_gate.shape)}"
        )


def _check_offsets(offsets: Tensor, q: Tensor) -> Tensor:
    offsets, total = check_index("offsets", offsets, (None,), "(problems + 1,)", q), q.shape[0]
    if offsets.shape[0] < 2:
        raise ValueError(
            f"offsets must have shape (problems + 1,) with a problem, got {tuple(offsets.shape)}"
        )
    if is_readable(offsets):
        if int(offsets[0]) != 0 or int(offsets[-1]) != total:
            raise ValueError(
                f"offsets must run from 0 to the {total} tokens of q (total, heads, dim), "
                f"got {int(offsets[0])} to {int(offsets[-1])}"
            )
        step = offsets.diff()
        if bool((step < 0).any()):
            at = int((step < 0).nonzero()[0])
            raise ValueError(
                f"offsets must not decrease, got {int(offsets[at])} before {int(offsets[at + 1])} "
                f"at positions {at} and {at + 1}"
            )
    return offsets


def _longest(
    offsets: Tensor, longest: int | None, bias: Tensor | None, mask: Tensor | None
) -> int | None:
    """An upper bound of the tokens in a packed problem; None where only a trace could tell."""
    if longest is not None and (
        isinstance(longest, bool) or not isinstance(longest, int) or longest < 1
    ):
        raise ValueError(f"longest must be a positive integer, got {longest!r}")
    reach = max(
        (n for x in (bias, mask) if x is not None and x.dim() >= 1 for n in x.shape[-2:]), default=1
    )
    given = reach if reach > 1 else longest
    if longest is not None and reach > 1 and longest > reach:
        raise ValueError(f"bias and mask reach {reach} tokens, but longest is {longest}")
    if torch.compiler.is_compiling() or (given is not None and offsets.device.type != "cpu"):
        return given
    found = int(offsets.diff().max())
    if longest is not None and longest < found:
        raise ValueError(f"longest is {longest}, but the longest problem has {found} tokens")
    if reach > 1 and reach < found:
        raise ValueError(f"bias and mask reach {reach} tokens, but the longest problem has {found}")
    return found if given is None else max(given, found)
