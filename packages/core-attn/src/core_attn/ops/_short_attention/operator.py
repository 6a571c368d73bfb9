"""Softmax attention for many small problems."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .._checks import check_broadcasts, check_dropout, check_float, check_scale
from .._dispatch import Backend, dispatch
from . import cpu, padded, reference, triton_backend
from .call import ShortCall

BACKENDS = (
    Backend("triton", triton_backend.run, triton_backend.refuses),
    Backend("cpu", cpu.run, cpu.refuses),
    Backend("attention", padded.run, padded.refuses),
    Backend("reference", reference.run, reference.refuses),
)


def short_attention(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch heads keys dim"],
    v: Float[Tensor, "*batch heads keys v_dim"],
    *,
    bias: Float[Tensor, "..."] | None = None,
    mask: Bool[Tensor, "..."] | None = None,
    offsets: Int[Tensor, "problems_and_one"] | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    head_gate: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "*batch heads queries v_dim"]:
    r"""Attention over many problems of 2 to 128 tokens: gate * softmax(scale * q k^T + bias) v.

    The mathematics of `attention` for fields of a table, neighbours of an atom, windows of an
    image or key points of a body, each problem solved as a whole on chip. Problems of one size are
    padded tensors (*batch, heads, tokens, dim). Problems of various sizes can be packed instead:
    q, k and v are (total, heads, dim), the problems one after the other, and `offsets` says where
    each starts. A query with no allowed key gives 0.

    On a CPU a kernel in C does the work. The compiler at hand (`cc`, or what the environment
    variable CC names) builds it at first use, in a second or two, into the user's cache folder;
    without one, or with CORE_ATTN_NATIVE=0, `attention` takes over.

    Args:
        q: queries; views such as a split of heads are read where they lie.
        k: keys, as many heads as `q`.
        v: values, as many tokens as `k`.
        bias: added to the scores, broadcastable to (*batch, heads, queries, keys), packed to
            (problems, heads, T, T) with T at least the tokens of the longest problem; so
            (heads, T, T) is shared by all problems. -inf forbids.
        mask: True where a query may see a key, broadcastable like `bias`.
        offsets: (problems + 1) integers from 0 to total that never decrease; problem p is made of
            the tokens `offsets[p]` to `offsets[p + 1] - 1`. None for padded tensors.
        scale: factor on the scores; 1/sqrt(dim) by default.
        dropout: probability with which each weight is zeroed (the rest scaled up). Always active.
        head_gate: factor on each head's output: (*batch, heads) or (*batch, queries, heads),
            packed (problems, heads) or (total, heads).

    Returns:
        The heads' outputs, in the shape of `q` (with v's dim), differentiable in every float
        argument; on a CPU twice, in every backend.

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
    call = _check(q, k, v, bias, mask, offsets, scale, dropout, head_gate)
    return dispatch("short_attention", BACKENDS, call)


def _check(q, k, v, bias, mask, offsets, scale, dropout, head_gate) -> ShortCall:
    """Checks every argument and returns the call in its normal form."""
    check_float(q=q, k=k, v=v, head_gate=head_gate)
    check_float(bias=bias)
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean (True = may be seen), got {mask.dtype}")
    for name, x in (("bias", bias), ("mask", mask), ("offsets", offsets)):
        if x is not None and x.device != q.device:
            raise ValueError(f"{name} is on {x.device}, q is on {q.device}; they must agree")
    _check_shapes(q, k, v, packed=offsets is not None)
    heads = q.shape[-2] if offsets is not None else q.shape[-3]
    if offsets is None:
        *batch, _, queries, _ = q.shape
        keys = k.shape[-2]
        longest = max(queries, keys)
        gates = ((*batch, heads), (*batch, queries, heads))
    else:
        problems = _check_offsets(offsets, q.shape[0])
        longest = _longest(offsets, bias, mask)
        queries = keys = longest or 0  # unknown only where nothing has to fit
        batch = (problems,)
        gates = ((problems, heads), (q.shape[0], heads))
    for name, x in (("bias", bias), ("mask", mask)):
        if x is not None:
            axes = f"({'*batch' if offsets is None else 'problems'}, heads, queries, keys)"
            check_broadcasts(name, x.shape, (*batch, heads, queries, keys), axes)
    if head_gate is not None and head_gate.shape not in gates:
        raise ValueError(
            f"head_gate must have shape {gates[0]} (one factor per problem and head) or "
            f"{gates[1]} (per query), got {tuple(head_gate.shape)}"
        )
    return ShortCall(
        q, k, v, bias, mask, offsets, longest, check_scale(scale, q.shape[-1]),
        check_dropout(dropout), head_gate,
    )  # fmt: skip


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, packed: bool) -> None:
    wanted = "(total, heads, dim)" if packed else "(*batch, heads, tokens, dim)"
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() < 3 or (packed and x.dim() != 3):
            raise ValueError(f"{name} must be {wanted}, got shape {tuple(x.shape)}")
    if k.shape[-1] != q.shape[-1]:
        raise ValueError(f"k has head dim {k.shape[-1]}, q has {q.shape[-1]}; they must agree")
    tokens = k.shape[-3 if packed else -2]
    like = q.shape[:-1] if packed else (*q.shape[:-2], tokens)
    for name, x in (("k", k), ("v", v)):
        if x.shape[:-1] != like:
            raise ValueError(
                f"{name} must have shape {(*like, 'dim')} beside q of {tuple(q.shape)}, "
                f"got {tuple(x.shape)}"
            )


def _check_offsets(offsets: Tensor, total: int) -> int:
    """Returns the number of problems."""
    if offsets.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"offsets must be int32 or int64, got {offsets.dtype}")
    if offsets.dim() != 1 or offsets.shape[0] < 2:
        raise ValueError(
            f"offsets must have shape (problems + 1,) with a problem, got {tuple(offsets.shape)}"
        )
    # Reading values would stall a GPU and break a trace.
    if offsets.device.type == "cpu" and not torch.compiler.is_compiling():
        if int(offsets[0]) != 0 or int(offsets[-1]) != total:
            raise ValueError(
                f"offsets must run from 0 to the {total} tokens of q, "
                f"got {int(offsets[0])} to {int(offsets[-1])}"
            )
        step = offsets.diff()
        if bool((step < 0).any()):
            at = int((step < 0).nonzero()[0])
            raise ValueError(
                f"offsets must not decrease, got {int(offsets[at])} before {int(offsets[at + 1])} "
                f"at positions {at} and {at + 1}"
            )
    return offsets.shape[0] - 1


def _longest(offsets: Tensor, bias: Tensor | None, mask: Tensor | None) -> int | None:
    """An upper bound of the tokens in a packed problem; None where only a trace could tell."""
    given = max(
        (n for x in (bias, mask) if x is not None and x.dim() >= 1 for n in x.shape[-2:]), default=1
    )
    if torch.compiler.is_compiling() or (given > 1 and offsets.device.type != "cpu"):
        return given if given > 1 else None
    longest = int(offsets.diff().max())
    if given > 1 and given < longest:
        raise ValueError(
            f"bias and mask reach {given} tokens, but the longest problem has {longest}"
        )
    return max(given, longest)
