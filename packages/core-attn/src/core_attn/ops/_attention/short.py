"""Attention over few tokens, by the kernels of `short_attention`."""

import torch
from torch import Tensor

from .._dispatch import Backend
from .call import AttentionCall, take_heads

# `short_attention` falls back on this package, so it is imported where it is needed, not here.

# Products below which the kernels' call costs more than they save: 0.1 ms more than SDPA's, which
# they beat threefold at 20 GFLOP/s.
WORTHWHILE = 1 << 20


def run(call: AttentionCall) -> Tensor:
    """Head maps become gathers; everything that forbids becomes one mask."""
    from .._short_attention.call import ShortCall

    backend, reason = _kernel(call)
    if backend is None:
        raise ValueError(reason)
    k, v = take_heads(call.k, call.k_head_map), take_heads(call.v, call.v_head_map)
    short = ShortCall(
        call.q, k, v, call.bias, call.allowed(), None, _longest(call), call.scale, call.dropout,
        call.head_gate,
    )  # fmt: skip
    return backend.run(short)


def refuses(call: AttentionCall) -> str | None:
    """It takes what a kernel of `short_attention` takes, outside of exported graphs."""
    if torch.compiler.is_exporting():
        return "an exported graph is made of torch's own operators"
    if call.q.device.type == "cpu" and call.q.numel() * call.k.shape[-2] < WORTHWHILE:
        return f"fewer than {WORTHWHILE} products: the call would cost more than it saves"
    return _kernel(call)[1]


def _kernel(call: AttentionCall) -> tuple[Backend | None, str | None]:
    """The kernel of `short_attention` that takes the call, or why none does."""
    from .._short_attention.call import ShortCall
    from .._short_attention.operator import BACKENDS

    short = ShortCall(
        call.q, call.k, call.v, call.bias, call.mask, None, _longest(call), call.scale,
        call.dropout, call.head_gate,
    )  # fmt: skip
    reasons = []
    for backend in BACKENDS:
        if backend.name in ("triton", "cpu"):
            reason = backend.refuses(short)
            if reason is None:
                return backend, None
            reasons.append(reason)
    return None, reasons[-1]


def _longest(call: AttentionCall) -> int:
    return max(call.q.shape[-2], call.k.shape[-2])
