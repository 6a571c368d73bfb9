"""The checked arguments of one WKV call."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._checks import cast_by_autocast, check_float, check_known, check_tensor, is_readable

EMPTY = -1e38  # the logarithm of the scale of sums over nothing


class WkvCall(NamedTuple):
    """Arguments of `wkv` after its checks, in at least float32; the state is never None."""

    k: Tensor
    v: Tensor
    log_decay: Tensor
    bonus: Tensor
    state: Tensor


def check(k, v, log_decay, bonus, state) -> WkvCall:
    """Checks the arguments and returns them in their normal form."""
    k, v = cast_by_autocast(k, v, widest=True)
    for name, x in (("k", k), ("v", v), ("log_decay", log_decay), ("bonus", bonus)):
        check_tensor(name, x)
    check_float(k=k, v=v)
    check_float(log_decay=log_decay)
    check_float(bonus=bonus)
    if k.dim() != 3 or v.shape != k.shape:
        raise ValueError(
            f"k and v must be (batch, tokens, channels) alike, got {tuple(k.shape)} and "
            f"{tuple(v.shape)}"
        )
    batch, _, channels = k.shape
    for name, x in (("log_decay", log_decay), ("bonus", bonus)):
        if tuple(x.shape) != (channels,):
            raise ValueError(f"{name} must be ({channels},), got {tuple(x.shape)}")
        if x.device != k.device:
            raise ValueError(f"{name} is on {x.device}, k is on {k.device}; they must agree")
    if is_readable(log_decay):
        if channels and not log_decay.detach().max() <= 0:  # NaN is not
            raise ValueError(f"log_decay must be at most 0, got {float(log_decay.detach().max())}")
    wide = torch.promote_types(torch.promote_types(k.dtype, log_decay.dtype), torch.float32)
    given = state is not None
    if not given:
        state = k.new_zeros(batch, 3, channels, dtype=wide)
        state[:, 2] = EMPTY
    check_float(state=state)
    if tuple(state.shape) != (batch, 3, channels):
        raise ValueError(
            f"state must be (batch, 3, channels) = {(batch, 3, channels)}, got {tuple(state.shape)}"
        )
    if given:
        check_known("state", state)
    return WkvCall(*(x.to(wide) for x in (k, v, log_decay, bonus, state)))
