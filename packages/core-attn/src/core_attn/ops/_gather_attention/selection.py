"""Choosing positions by score, and bringing what was computed there back to the tokens."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._along_tokens import native
from .._checks import check_float, check_values, is_integer, is_readable
from .._normal import wide


def top_positions(
    scores: Float[Tensor, "*rows positions"], count: int, *, ascending: bool = False
) -> Int[Tensor, "*rows count"]:
    """The positions of the largest scores; of equal ones the lower position, on every device.

    On a CPU by a kernel in C, for rows of a thousand some five times as fast as `torch.topk`, which
    takes any of the equal ones.

    Args:
        scores: in any float dtype; NaN counts as the largest.
        count: how many to take.
        ascending: sort the result by position; else by falling score.

    Raises:
        TypeError: `scores` is not a floating tensor.
        ValueError: there are fewer positions than `count`, or it is no number of them.

    Example:
        >>> import torch
        >>> top_positions(torch.tensor([1.0, 3.0, 1.0, 3.0, 1.0]), 3)
        tensor([1, 3, 0])
    """
    check_float(scores=scores)
    positions = scores.shape[-1] if scores.dim() else 0
    if not scores.dim() or not is_integer(count) or not 0 <= count <= positions:
        raise ValueError(f"count must be in [0, {positions}], got {count!r}")
    scores = scores.detach()
    if torch.onnx.is_in_onnx_export():  # ONNX has no stable sort; its TopK orders equal scores so
        chosen = (scores + 0.0).topk(count).indices
    elif count and is_readable(scores) and native.refuses(scores) is None:
        return _top(scores.float().contiguous(), count, ascending)
    else:  # 0.0 + makes one zero of two
        chosen = (scores + 0.0).sort(dim=-1, descending=True, stable=True).indices[..., :count]
    return chosen.sort(-1).values if ascending else chosen


_Call = native.structure("Top", ("rows", "positions", "count", "ascending"), ("scores", "out"))


def _top(scores: Tensor, count: int, ascending: bool) -> Tensor:
    """The kernel in C: a stable sort's choice, many times as fast."""
    positions = scores.shape[-1]
    out = torch.empty(*scores.shape[:-1], count, dtype=torch.int64)
    native.run(
        "core_attn_top", _Call(), 0, rows=scores.numel() // positions, positions=positions,
        count=count, ascending=ascending, scores=scores, out=out,
    )  # fmt: skip
    return out


def scatter_sum(
    outputs: Float[Tensor, "*batch clusters members dim"],
    members: Int[Tensor, "*batch clusters members"],
    tokens: int,
) -> Float[Tensor, "*batch tokens dim"]:
    """Adds what clusters computed for their members up to one vector per token.

    Args:
        outputs: of the members of every cluster.
        members: their positions.
        tokens: how many tokens there are; those of no cluster get 0.

    Raises:
        ValueError: the shapes do not agree, or a position is none of the tokens'.

    Source: Yang et al., 2025, "Union of Experts: Adapting Hierarchical Routing to Equivalently
    Decomposed Transformer", arXiv 2503.02495, section 3.

    Example:
        >>> import torch
        >>> scatter_sum(torch.ones(2, 2, 1), torch.tensor([[0, 1], [1, 3]]), 4).flatten()
        tensor([1., 2., 0., 1.])
    """
    if outputs.shape[:-1] != members.shape:
        raise ValueError(
            f"outputs {tuple(outputs.shape)} must be members {tuple(members.shape)} and features"
        )
    check_values("members", members, 0, tokens - 1)
    lead, dim = members.shape[:-2], outputs.shape[-1]
    rows_of = math.prod(lead)  # not numel(), which would fix the sizes of a program
    first = tokens * torch.arange(rows_of, device=members.device)
    rows = members.flatten(-2).long() + first.view(*lead, 1)
    total = outputs.new_zeros(rows_of * tokens, dim)
    total = total.index_add(0, rows.flatten(), outputs.flatten(0, -2))
    return total.view(*lead, tokens, dim)


def scatter_mean(
    outputs: Float[Tensor, "*batch clusters members dim"],
    members: Int[Tensor, "*batch clusters members"],
    tokens: int,
    eps: float = 0.0,
) -> Float[Tensor, "*batch tokens dim"]:
    """The mean over the clusters that a token is in, 0 where it is in none.

    Args:
        outputs: of the members of every cluster.
        members: their positions.
        tokens: how many tokens there are.
        eps: added to the count that divides.

    Raises:
        ValueError: the shapes do not agree, or a position is none of the tokens'.

    Source: Roy et al., 2020, "Efficient Content-Based Sparse Attention with Routing Transformers",
    arXiv 2003.05997, section 4.1.

    Example:
        >>> import torch
        >>> scatter_mean(torch.ones(2, 2, 1), torch.tensor([[0, 1], [1, 3]]), 4).flatten()
        tensor([1., 1., 0., 1.])
    """
    total = scatter_sum(outputs, members, tokens)
    ones = torch.ones_like(members, dtype=wide(outputs))[..., None]
    count = scatter_sum(ones, members, tokens)
    return total / torch.where(count > 0, count + eps, 1.0).to(total.dtype)
