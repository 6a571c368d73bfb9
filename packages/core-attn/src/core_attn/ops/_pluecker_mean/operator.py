"""The mean of normed Pluecker coordinates over fixed offsets."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from .._dispatch import Backend, Operator, offer_of
from . import cpu, factored, reference, triton_backend
from .call import check

PLUECKER_MEAN = Operator(
    "pluecker_mean",
    Backend("cpu", offer_of(cpu.run, cpu.refuses, cpu.reluctant)),
    Backend(
        "triton",
        offer_of(triton_backend.run, triton_backend.refuses, triton_backend.reluctant),
    ),
    Backend("factored", offer_of(factored.run), plain=True),
    Backend("reference", offer_of(reference.run), plain=True),
)


def pluecker_mean(
    z: Float[Tensor, "batch tokens dim"], offsets: Sequence[int], *, eps: float = 1e-8
) -> Float[Tensor, "batch tokens pairs"]:
    r"""Mean over the offsets of the normed Pluecker coordinates of the planes (z_t, z_{t-offset}).

    The coordinates p_ij = u_i v_j - u_j v_i, i < j in row-major order, are divided by
    max(|p|, eps); offsets that lead outside the text do not count, and where none is left the mean
    is 0. The planes of all offsets never exist together.

    Args:
        z: vectors, of two features or more.
        offsets: distinct and not 0; one above 0 pairs a token with an earlier one, one below with
            a later one.
        eps: the least norm.

    Returns:
        (batch, tokens, dim (dim - 1) / 2), computed in at least float32, in the dtype of `z`.

    Raises:
        TypeError: `z` is not a floating tensor, or an offset no integer.
        ValueError: shapes or values that do not fit.

    Source: Zhang, 2025, "Attention Is Not What You Need", arXiv 2512.19428, section 3.

    Example: two states, one of them twice as long, span the same plane with a third.
        >>> import torch
        >>> z = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]]])
        >>> pluecker_mean(z, [1])
        tensor([[[ 0.,  0.,  0.],
                 [-1.,  0.,  0.]]])
    """
    return PLUECKER_MEAN(check(z, offsets, eps))
