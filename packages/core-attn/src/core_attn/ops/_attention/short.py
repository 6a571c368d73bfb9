"""Attention over few tokens, by the kernels of `short_attention`."""

from torch import Tensor

from .._dispatch import Plan, Refusal
from .._recompute import twice_differentiable
from .._short_attention.call import ShortCall
from .._short_attention.kernels import KERNELS, Kernel
from . import reference
from .call import FLOATS, AttentionCall, take_heads

# Products below which the kernels' call costs more than they save: 0.1 ms more than SDPA's, which
# they beat threefold at 20 GFLOP/s.
WORTHWHILE = 1 << 20


def offer(call: AttentionCall) -> Plan | Refusal:
    """It takes what a kernel of `short_attention` takes and gains by."""
    asked = _short(call, call.k, call.v, call.mask)
    refused = {}
    for kernel in KERNELS:
        reason = kernel.refuses(asked)
        if reason is None:
            return _worthwhile(call, kernel)
        refused[kernel.name] = reason
    return Refusal("; ".join(f"{name}: {reason}" for name, reason in refused.items()))


def _worthwhile(call: AttentionCall, kernel: Kernel) -> Plan | Refusal:
    plan = Plan(lambda: _run(call, kernel), kernel.name)
    if call.q.device.type == "cpu" and call.q.numel() * call.k.shape[-2] < WORTHWHILE:
        return Refusal(
            f"fewer than {WORTHWHILE} products: the call would cost more than it saves", plan
        )
    return plan


def _run(call: AttentionCall, kernel: Kernel) -> Tensor:
    """Head maps become gathers; everything that forbids becomes one mask."""
    k, v = call.shielded()
    k, v = take_heads(k, call.k_head_map), take_heads(v, call.v_head_map)
    out = kernel.run(_short(call, k, v, call.allowed()))
    if kernel.twice or call.dropout:  # no second run would drop the same weights
        return out
    return twice_differentiable(out, "attention", reference.run, call, FLOATS)


def _short(call: AttentionCall, k: Tensor, v: Tensor, mask: Tensor | None) -> ShortCall:
    longest = max(call.q.shape[-2], k.shape[-2])
    return ShortCall(
        call.q, k, v, scale=call.scale, longest=longest, bias=call.bias, mask=mask,
        dropout=call.dropout, head_gate=call.head_gate,
    )  # fmt: skip
