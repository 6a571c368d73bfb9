"""The arguments of a recurrence over an outer-product state: as they are given, and checked."""

from typing import NamedTuple, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import (
    cast_by_autocast,
    check_broadcasts,
    check_float,
    check_qkv,
    check_scale,
    check_tensor,
    is_readable,
)
from .._normal import one_batch


class RecurrenceOptions(TypedDict, total=False):
    """What `linear_attention` and `delta_rule` take besides their tokens; all may be left out.

    Gates may have another floating dtype than the tokens, as float32 beside bfloat16.

    Attributes:
        beta: how strongly each token is written, broadcastable to (*batch, heads, tokens); 1.
        decay: factor on the old state at each token, in [0, 1], broadcastable likewise; 1.
        log_decay: its logarithm instead, at most 0, for gates whose product is too small a number.
        state: the state before the first token, (*batch, heads, dim, v_dim); zeros.
        scale: factor on the outputs; 1/sqrt(dim) by default.
    """

    beta: Float[Tensor, "..."] | None
    decay: Float[Tensor, "..."] | None
    log_decay: Float[Tensor, "..."] | None
    state: Float[Tensor, "*batch heads dim v_dim"] | None
    scale: float | None


class RecurrenceCall(NamedTuple):
    """Arguments of `linear_attention` and `delta_rule` after their checks, one batch axis.

    Gates are (batch, heads, tokens); they and the state are in the dtype that is computed in. At
    most one of `decay` and `log_decay` is there.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor | None
    decay: Tensor | None
    log_decay: Tensor | None
    state: Tensor | None
    scale: float

    @property
    def wide(self) -> torch.dtype:
        """The dtype of the state: at least float32."""
        return torch.promote_types(self.q.dtype, torch.float32)

    def initial_state(self) -> Tensor:
        """The state before the first token, (batch, heads, dim, v_dim)."""
        if self.state is not None:
            return self.state
        shape = (*self.q.shape[:-2], self.q.shape[-1], self.v.shape[-1])
        return self.q.new_zeros(shape, dtype=self.wide)

    def factors(self) -> Tensor | None:
        """The factor on the old state at each token."""
        return self.decay if self.log_decay is None else self.log_decay.exp()


def check(
    q, k, v, *, beta=None, decay=None, log_decay=None, state=None, scale=None
) -> RecurrenceCall:
    """Checks the arguments that both recurrences share and returns them in their normal form."""
    q, k, v = cast_by_autocast(q, k, v, widest=True)
    check_qkv(q, k, v)
    if k.shape != q.shape:
        raise ValueError(f"k has shape {tuple(k.shape)}, q has {tuple(q.shape)}; they must agree")
    if v.shape[:-1] != q.shape[:-1]:
        raise ValueError(
            f"v has shape {tuple(v.shape)}, q has {tuple(q.shape)}; all but the last must agree"
        )
    if decay is not None and log_decay is not None:
        raise ValueError("decay and log_decay are the same thing; one of them must be None")
    wide = torch.promote_types(q.dtype, torch.float32)
    if state is not None:
        check_tensor("state", state, like=q)
        check_float(state=state)
        shape = (*q.shape[:-2], q.shape[-1], v.shape[-1])
        if tuple(state.shape) != shape:
            raise ValueError(
                f"state must be (*batch, heads, dim, v_dim) = {shape}, got {tuple(state.shape)}"
            )
        state = one_batch(state).to(wide)
    return RecurrenceCall(
        one_batch(q), one_batch(k), one_batch(v),
        _gate("beta", beta, q, None), _gate("decay", decay, q, (0.0, 1.0)),
        _gate("log_decay", log_decay, q, (-torch.inf, 0.0)), state,
        check_scale(scale, q.shape[-1]),
    )  # fmt: skip


def _gate(
    name: str, x: Tensor | None, q: Tensor, bounds: tuple[float, float] | None
) -> Tensor | None:
    if x is None:
        return None
    check_tensor(name, x, like=q)
    check_float(**{name: x})
    check_broadcasts(name, x.shape, q.shape[:-1], "(*batch, heads, tokens)")
    if bounds is not None and is_readable(x) and x.numel():
        low, high = (float(value) for value in x.detach().aminmax())
        if not (bounds[0] <= low and high <= bounds[1]):
            raise ValueError(
                f"{name} must be in [{bounds[0]:g}, {bounds[1]:g}], got values from {low} to {high}"
            )
    return one_batch(x.to(torch.promote_types(q.dtype, torch.float32)).expand(q.shape[:-1]), 2)
