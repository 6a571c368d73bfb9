"""What attention is: plain torch, any dtype, differentiable any number of times."""

import torch
from torch import Tensor

from .._checks import is_readable
from .._dropout.operator import dropout
from .call import AttentionCall, take_heads


def scores(call: AttentionCall, rows: slice | None = None) -> Tensor:
    """The scores of the given queries, (batch, heads, rows, keys), -inf where a key is not seen."""
    rows = slice(None) if rows is None else rows
    q, k = call.q[..., rows, :], take_heads(call.shielded()[0], call.k_head_map)
    wide = torch.promote_types(q.dtype, torch.float32)
    found = (call.scale * q.to(wide)) @ k.to(wide).transpose(-1, -2)
    if call.bias is not None:
        bias = call.bias
        if bias.shape[-2] > 1:
            bias = bias[..., rows, :]
        found = found + bias.to(wide)
    allowed = call.allowed(rows)
    return found if allowed is None else found.masked_fill(~allowed, -torch.inf)


def weights(call: AttentionCall, rows: slice | None = None) -> Tensor:
    """The weights of the given queries, (batch, heads, rows, keys), before dropout."""
    found = scores(call, rows)
    if call.bias is not None:
        blind = (found == -torch.inf).all(-1, keepdim=True)
    elif (allowed := call.allowed(rows)) is not None:  # often the same for all heads
        blind = ~allowed.any(-1, keepdim=True)
    else:
        blind = None
    if blind is None or (is_readable(blind) and not blind.any()):
        return found.softmax(-1).to(call.q.dtype)
    return found.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0).to(call.q.dtype)


def lse(call: AttentionCall) -> Tensor:
    """The logarithm of what the weights of every query were divided by."""
    found = scores(call)
    blind = (found == -torch.inf).all(-1)  # whose tangent would be NaN
    seen = found.masked_fill(blind[..., None], 0.0)
    return seen.logsumexp(-1).masked_fill(blind, -torch.inf)


def run(call: AttentionCall) -> Tensor:
    """Attention by its definition."""
    seen = weights(call) if call.pattern is None else call.pattern(weights(call))
    return call.gated(dropout(seen, call.dropout) @ take_heads(call.shielded()[1], call.v_head_map))
