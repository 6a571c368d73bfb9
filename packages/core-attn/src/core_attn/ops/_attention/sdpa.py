"""Attention through torch's scaled_dot_product_attention, which picks a fused kernel of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._dispatch import Plan, Refusal
from .._normal import narrowed
from .._recompute import twice_differentiable
from . import reference
from .call import FLOATS, AttentionCall, take_heads


def offer(call: AttentionCall) -> Plan | Refusal:
    """It takes anything that has tokens."""
    if call.q.numel() == 0 or call.k.numel() == 0 or call.v.numel() == 0:
        return Refusal("there are no queries or no keys")
    plan = Plan(lambda: _run(call))
    if call.dropout and call.q.device.type == "cpu" and not torch.compiler.is_compiling():
        return Refusal("on a CPU it has no kernel that drops weights, and slow draws", plan)
    return plan


def _run(call: AttentionCall) -> Tensor:
    out = call.gated(_attend(call))
    if call.dropout:  # SDPA on a CPU is made of differentiable parts then, and no rerun would agree
        return out
    return twice_differentiable(out, "attention", reference.run, call, FLOATS)


def _attend(call: AttentionCall) -> Tensor:
    """Maps become gathers, where heads do not just share; all that forbids becomes one mask."""
    q = call.q
    if call.is_plain or (call.causal and call._replace(causal=False).is_plain):
        square = q.shape[-2] == call.k.shape[-2]
        # One query at the end sees every key; SDPA counts other rectangles from the first key.
        is_causal = bool(call.causal and q.shape[-2] > 1)  # a symbol, where sizes are open
        if square or not is_causal:
            return _sdpa(call, None, is_causal)
    allowed = call.allowed()
    if call.bias is None:
        return _sdpa(call, allowed, False)
    bias = call.bias
    # SDPA takes float32 beside narrower tensors, without grads; beside float64 it reads nonsense.
    if bias.dtype != torch.float32 or bias.requires_grad or q.dtype == torch.float64:
        bias = narrowed(bias, q.dtype)
    if allowed is not None:
        bias = bias.masked_fill(~allowed, float("-inf"))
    return _sdpa(call, bias, False)


def _sdpa(call: AttentionCall, mask: Tensor | None, is_causal: bool) -> Tensor:
    q, (k, v), scale, grouped = call.q, call.shielded(), call.scale, call.is_grouped
    if scale <= 0:  # SDPA scales what is forbidden, too: -inf by a negative number
        q, scale = q * scale, 1.0
    if not grouped:
        k, v = take_heads(k, call.k_head_map), take_heads(v, call.v_head_map)
    return F.scaled_dot_product_attention(
        q, k, v, mask, call.dropout, is_causal, scale=scale, enable_gqa=grouped
    )
