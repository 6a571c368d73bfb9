"""Dropout: torch's own, but for the draws on a CPU."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .._checks import check_dropout, check_float, check_tensor
from .._dispatch import Backend, Operator, offer_of
from . import cpu


class DropoutCall(NamedTuple):
    """Arguments of `dropout` after its checks."""

    x: Tensor
    p: float


DROPOUT = Operator(
    "dropout",
    Backend("cpu", offer_of(lambda c: cpu.run(c.x, c.p), lambda c: cpu.refuses(c.x))),
    Backend("reference", offer_of(lambda c: F.dropout(c.x, c.p)), plain=True),
)


def dropout(x: Float[Tensor, "..."], p: float, training: bool = True) -> Float[Tensor, "..."]:
    """Zeroes each number with probability `p` and divides the others by 1 - p.

    On a CPU torch draws one number after the other, which takes a tenth of a Transformer's training
    step; here they are hashes of their places and of one seed from torch's global generator, some
    17 times as fast, and drawn again in the backward pass, for which nothing is kept.

    Args:
        x: numbers.
        p: the probability, in [0, 1).
        training: False gives `x` itself.

    Raises:
        TypeError: `x` is not a floating tensor.
        ValueError: `p` is not a probability below 1.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> dropout(torch.ones(1000), 0.2).unique().tolist()
        [0.0, 1.25]
    """
    check_tensor("x", x)
    check_float(x=x)
    p = check_dropout(p)
    return DROPOUT(DropoutCall(x, p)) if p and training else x
