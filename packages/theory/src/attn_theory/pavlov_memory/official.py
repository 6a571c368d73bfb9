"""The layout of flash-linear-attention: (batch, time, heads, dim)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .rules import delta, hebbian


def recurrence(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads v_dim"],
    *,
    rule: Literal["hebb", "delta"],
    beta: Float[Tensor, "batch time heads"] | None = None,
    initial_state: Float[Tensor, "batch heads dim v_dim"] | None = None,
) -> tuple[Float[Tensor, "batch time heads v_dim"], Float[Tensor, "batch heads dim v_dim"]]:
    """A recurrence in that layout, queries scaled by 1/sqrt(dim).

    Raises:
        ValueError: the rule is unknown, or beta is given to the Hebbian one.

    Example:
        >>> x = torch.randn(2, 9, 3, 5)
        >>> recurrence(x, x, x, rule="hebb")[0].shape
        torch.Size([2, 9, 3, 5])
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if rule == "delta":
        rate = torch.ones_like(k[..., 0]) if beta is None else beta.transpose(1, 2)
        out, state = delta(q, k, v, rate, state=initial_state)
    elif rule == "hebb":
        if beta is not None:
            raise ValueError("beta belongs to rule 'delta'")
        out, state = hebbian(q, k, v, state=initial_state)
    else:
        raise ValueError(f"rule must be 'hebb' or 'delta', got {rule!r}")
    return out.transpose(1, 2), state
