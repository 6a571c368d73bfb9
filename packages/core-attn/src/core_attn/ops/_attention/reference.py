"""What attention is: plain torch, any dtype, differentiable any number of times."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .call import AttentionCall, take_heads


def weights(call: AttentionCall, rows: slice = slice(None)) -> Tensor:
    """The weights of the given queries, (batch, heads, rows, keys), before dropout."""
    q, k = call.q[..., rows, :], take_heads(call.shielded()[0], call.k_head_map)
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = call.scale * (q.to(wide) @ k.to(wide).transpose(-1, -2))
    if call.bias is not None:
        bias = call.bias
        if bias.shape[-2] > 1:
            bias = bias[..., rows, :]
        scores = scores + bias.to(wide)
    allowed = call.allowed(rows)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    if call.bias is None and allowed is None:
        return scores.softmax(-1).to(q.dtype)
    blind = (scores == -torch.inf).all(-1, keepdim=True)
    return scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0).to(q.dtype)


def run(call: AttentionCall) -> Tensor:
    """Attention by its definition."""
    seen = weights(call) if call.pattern is None else call.pattern(weights(call))
    attended = F.dropout(seen, call.dropout, training=call.dropout > 0)
    return call.gated(attended @ take_heads(call.shielded()[1], call.v_head_map))
