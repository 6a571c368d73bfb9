"""The checked arguments of one LIF call."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._checks import check_float, check_known, check_tensor


class LifCall(NamedTuple):
    """Arguments of `lif` after its checks; the state is in at least float32."""

    x: Tensor
    tau: float
    threshold: float
    state: Tensor


def check(x, tau, threshold, state) -> LifCall:
    """Checks the arguments and returns them in their normal form."""
    check_tensor("x", x)
    check_float(x=x)
    if x.dim() != 3:
        raise ValueError(f"x must be (batch, tokens, channels), got {tuple(x.shape)}")
    if not tau >= 1:
        raise ValueError(f"tau must be at least 1, got {tau}")
    if not threshold > 0:
        raise ValueError(f"threshold must be above 0, got {threshold}")
    shape = (x.shape[0], x.shape[2])
    wide = torch.promote_types(x.dtype, torch.float32)
    given = state is not None
    if not given:
        state = x.new_zeros(shape, dtype=wide)
    check_float(state=state)
    if tuple(state.shape) != shape:
        raise ValueError(f"state must be (batch, channels) = {shape}, got {tuple(state.shape)}")
    if given:
        check_known("state", state)
    return LifCall(x, float(tau), float(threshold), state.to(wide))
