"""Attention through torch's scaled_dot_product_attention, which picks a fused kernel of its own."""

import torch.nn.functional as F
from torch import Tensor

from .call import AttentionCall, take_heads


def run(call: AttentionCall) -> Tensor:
    """Attention by SDPA; maps become gathers, everything that forbids becomes one mask."""
    q = call.q
    if call.is_plain or (call.causal and call._replace(causal=False).is_plain):
        square = q.shape[-2] == call.k.shape[-2]
        # One query at the end sees every key; SDPA counts other rectangles from the first key.
        is_causal = call.causal and q.shape[-2] > 1
        if square or not is_causal:
            return call.gated(_sdpa(call, None, is_causal))
    allowed = call.allowed()
    if call.bias is None:
        return call.gated(_sdpa(call, allowed, False))
    bias = call.bias.to(q.dtype)
    if allowed is not None:
        bias = bias.masked_fill(~allowed, float("-inf"))
    return call.gated(_sdpa(call, bias, False))


def _sdpa(call: AttentionCall, mask: Tensor | None, is_causal: bool) -> Tensor:
    k, v = take_heads(call.k, call.k_head_map), take_heads(call.v, call.v_head_map)
    return F.scaled_dot_product_attention(
        call.q, k, v, mask, call.dropout, is_causal, scale=call.scale
    )


def refuses(call: AttentionCall) -> str | None:
    """It takes anything that has tokens."""
    if call.q.numel() == 0 or call.k.numel() == 0:
        return "there are no queries or no keys"
    return None
