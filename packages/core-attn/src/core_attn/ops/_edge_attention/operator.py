"""Attention among the edges of each atom, aware of the angles between them."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._checks import (
    cast_by_autocast,
    check_dropout,
    check_flag,
    check_float,
    check_scale,
    check_tensor,
    is_integer,
    is_readable,
)
from .._dispatch import Backend, Operator, offer_of
from . import cpu, reference, triton_backend
from .call import EdgeCall

EDGE_ATTENTION = Operator(
    "edge_attention",
    Backend("cpu", offer_of(cpu.run, cpu.refuses)),
    Backend(
        "triton",
        offer_of(triton_backend.run, triton_backend.refuses, triton_backend.reluctant),
    ),
    Backend("reference", offer_of(reference.run), plain=True),
)


def edge_attention(
    q: Float[Tensor, "queries heads dim"],
    k: Float[Tensor, "edges heads dim"],
    v: Float[Tensor, "edges heads v_dim"],
    direction: Float[Tensor, "edges 3"],
    offsets: Int[Tensor, " atoms_and_one"],
    *,
    degrees: Sequence[int] | None = None,
    bias: Float[Tensor, " edges"] | None = None,
    pair_bias: Float[Tensor, "atoms heads longest longest"] | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    first_only: bool = False,
    slots: int | None = None,
    pattern: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "queries heads v_dim"]:
    r"""softmax over t of scale * sum_l P_l(cos_st) q_sl . k_tl + bias_t, times v.

    The edges s, t of an atom attend to each other. The channels of a head are split among degrees
    l; those of degree l see the Legendre polynomial P_l of the cosine of the angle between the two
    edges. It is attention on queries and keys times the 2l + 1 spherical harmonics of each edge,
    without making them (2l + 1) times as wide. An edge of direction zero, as an atom's with itself,
    has no angle: only its channels of degree 0 count.

    On a CPU a kernel in C does the work in float32, first and second derivatives included; on a GPU
    one in Triton, of its own accord on sm_90 up to 32 edges of an atom.

    Args:
        q: queries of all edges, or of one per atom with `first_only`.
        k: keys of all edges.
        v: values of all edges.
        direction: unit vectors, or zero.
        offsets: (atoms + 1) integers from 0 to the number of edges that never decrease: where each
            atom's edges begin.
        degrees: channels of a head for l = 0, 1, ..., which sum to dim; all of degree 0 by default.
        bias: added to the logits of each key; -inf forbids it.
        pair_bias: added to those of each pair of an atom's edges.
        scale: factor on the products; 1/sqrt(dim) by default.
        dropout: probability with which each weight is zeroed (the rest scaled up). Always active.
        first_only: whether only the first edge of each atom asks.
        slots: the edges of every atom where all have as many, so that a trace knows the shapes.
        pattern: is given the weights (atoms, heads, queries, keys), what it returns is used.

    Returns:
        The heads' outputs for each query, differentiable twice in every float argument. A query
        with no allowed key gives 0.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: shapes, dtypes, devices, offsets or numbers that do not fit.

    Source: Qu and Krishnapriyan, 2024, arXiv 2410.24169, and its authors' second release; the
        addition theorem of spherical harmonics.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 5, 2, 8).unbind(0)
        >>> along = torch.nn.functional.normalize(torch.randn(5, 3), dim=1)
        >>> offsets = torch.tensor([0, 2, 5])
        >>> edge_attention(q, k, v, along, offsets, degrees=(4, 2, 2)).shape
        torch.Size([5, 2, 8])
    """
    q, k, v, direction, bias, pair_bias = cast_by_autocast(q, k, v, direction, bias, pair_bias)
    for name, x in (("q", q), ("k", k), ("v", v), ("direction", direction), ("offsets", offsets)):
        check_tensor(name, x)
    check_float(q=q, k=k, v=v, direction=direction, bias=bias, pair_bias=pair_bias)
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 3:
            raise ValueError(f"{name} must be (edges, heads, dim), got shape {tuple(x.shape)}")
    if offsets.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"offsets must be int32 or int64, got {offsets.dtype}")
    if offsets.dim() != 1 or offsets.shape[0] < 2:
        raise ValueError(f"offsets must have shape (atoms + 1,), got {tuple(offsets.shape)}")
    edges, heads, dim = k.shape
    queries = offsets.shape[0] - 1 if first_only else edges
    shapes: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "q": (q, (queries, heads, dim)),
        "v": (v, (edges, heads, v.shape[2])),
    }
    shapes["direction"] = (direction, (edges, 3))
    if bias is not None:
        shapes["bias"] = (bias, (edges,))
    for name, (x, wanted) in shapes.items():
        if tuple(x.shape) != wanted:
            raise ValueError(f"{name} must have shape {wanted} beside k, got {tuple(x.shape)}")
    atoms, longest = offsets.shape[0] - 1, slots
    if slots is not None and (not is_integer(slots) or edges != slots * atoms):
        raise ValueError(f"slots {slots!r} of {atoms} atoms are not {edges} edges")
    degrees = (dim,) if degrees is None else tuple(int(count) for count in degrees)
    if sum(degrees) != dim or min(degrees) < 0:
        raise ValueError(f"degrees {degrees} must sum to the head dim {dim}")
    if is_readable(offsets):
        ends = int(offsets[0]), int(offsets[-1])
        if ends != (0, edges) or bool((offsets.diff() < 0).any()):
            raise ValueError(
                f"offsets must rise from 0 to the {edges} edges, got {ends[0]} to {ends[1]}"
            )
        if slots is not None or pair_bias is not None:
            longest = int(offsets.diff().max())
        if slots is not None and longest != slots:  # more than their mean, then
            raise ValueError(f"slots is {slots}, but an atom has {longest} edges")
    if pair_bias is not None:
        wanted = (atoms, heads, longest, longest)
        fits = pair_bias.dim() == 4 and all(
            size is None or have in (1, size)
            for have, size in zip(pair_bias.shape, wanted, strict=True)
        )
        if not fits:
            raise ValueError(
                f"pair_bias must be (atoms, heads, longest, longest) = {wanted}, "
                f"got {tuple(pair_bias.shape)}"
            )
    call = EdgeCall(
        q, k, v, direction, offsets.long(), bias, pair_bias, degrees, check_scale(scale, dim),
        check_dropout(dropout), check_flag("first_only", first_only), slots, pattern,
    )  # fmt: skip
    return EDGE_ATTENTION(call)
