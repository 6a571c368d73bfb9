"""The checked arguments of one recurrence over an outer-product state."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._checks import check_broadcasts, check_float, check_scale


class RecurrenceCall(NamedTuple):
    """Arguments of `linear_attention` and `delta_rule` after their checks; gates are full."""

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor | None
    decay: Tensor | None
    state: Tensor | None
    scale: float

    @property
    def wide(self) -> torch.dtype:
        """The dtype of the state: at least float32."""
        return torch.promote_types(self.q.dtype, torch.float32)

    def initial_state(self) -> Tensor:
        """The state before the first token, (*batch, heads, dim, v_dim)."""
        if self.state is not None:
            return self.state.to(self.wide)
        shape = (*self.q.shape[:-2], self.q.shape[-1], self.v.shape[-1])
        return self.q.new_zeros(shape, dtype=self.wide)


def check(q, k, v, beta, decay, state, scale) -> RecurrenceCall:
    """Checks the arguments that both recurrences share and returns them in their normal form."""
    check_float(q=q, k=k, v=v, beta=beta, decay=decay)
    check_float(state=state)
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() < 3:
            raise ValueError(
                f"{name} must be (*batch, heads, tokens, dim), got shape {tuple(x.shape)}"
            )
    if k.shape != q.shape:
        raise ValueError(f"k has shape {tuple(k.shape)}, q has {tuple(q.shape)}; they must agree")
    if v.shape[:-1] != q.shape[:-1]:
        raise ValueError(
            f"v has shape {tuple(v.shape)}, q has {tuple(q.shape)}; all but the last must agree"
        )
    tokens = q.shape[:-1]
    axes = "(*batch, heads, tokens)"
    if beta is not None:
        check_broadcasts("beta", beta.shape, tokens, axes)
        beta = beta.expand(tokens)
    if decay is not None:
        check_broadcasts("decay", decay.shape, tokens, axes)
        # Reading values would stall a GPU and break a trace.
        if decay.device.type == "cpu" and not torch.compiler.is_compiling() and decay.numel():
            low, high = decay.detach().aminmax()
            if not (0.0 < low and high <= 1.0):
                raise ValueError(
                    f"decay must be in (0, 1], got values from {float(low)} to {float(high)}"
                )
        decay = decay.expand(tokens)
    if state is not None:
        shape = (*q.shape[:-2], q.shape[-1], v.shape[-1])
        if tuple(state.shape) != shape:
            raise ValueError(
                f"state must be (*batch, heads, dim, v_dim) = {shape}, got {tuple(state.shape)}"
            )
        if state.device != q.device:
            raise ValueError(f"state is on {state.device}, q is on {q.device}; they must agree")
    return RecurrenceCall(q, k, v, beta, decay, state, check_scale(scale, q.shape[-1]))
