"""What attention over index lists is: plain torch, in any dtype, differentiable at will."""

import torch
from torch import Tensor

from .._dropout.operator import dropout
from .call import GatherCall


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of (*batch, heads, tokens, dim) by an index (*batch, heads, groups, picks)."""
    flat = index.clamp(min=0).flatten(-2)[..., None]
    return x.gather(-2, flat.expand(*flat.shape[:-1], x.shape[-1])).unflatten(-2, index.shape[-2:])


def weights(call: GatherCall) -> Tensor:
    """The weights, (*batch, heads, groups, members, memory + picks), before dropout."""
    q, k, members, keys = call.q, take(call.k, call.keys), call.members, call.keys
    wide = torch.promote_types(q.dtype, torch.float32)
    q = q[..., None, :] if call.queries is None else take(q, members)
    scores = call.scale * (q.to(wide) @ k.to(wide).transpose(-1, -2))
    if call.relative_k is not None:
        table = call.relative_k.to(wide)[:, _apart(call.relative_k, q, k)]
        scores = scores + call.scale * torch.einsum("...hgmd,hmnd->...hgmn", q.to(wide), table)
    if call.self_bias:
        scores = scores + call.self_bias * (members[..., None] == keys[..., None, :])
    seen = (keys >= 0)[..., None, :]
    if call.key_mask is not None:
        everywhere = call.key_mask[..., None, :, None].expand(*call.k.shape[:-1], 1)
        seen = seen & take(everywhere, keys).squeeze(-1)[..., None, :]
    if call.causal:
        seen = seen & (keys[..., None, :] <= members[..., None])
    scores = scores.masked_fill(~seen, -torch.inf)
    if call.memory_k is not None:
        remembered = call.scale * (q.to(wide) @ call.memory_k.to(wide).transpose(-1, -2))
        scores = torch.cat([remembered, scores], -1)
    if call.bias is not None:
        scores = scores + call.bias.to(wide)
    blind = (scores == -torch.inf).all(-1, keepdim=True)
    return scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0).to(call.q.dtype)


def mix(call: GatherCall, weights: Tensor) -> Tensor:
    """The values under `weights`, (*batch, heads, groups, members, v_dim)."""
    memory, v = call.memory, take(call.v, call.keys)
    out = weights[..., memory:] @ v
    if call.memory_v is not None:
        out = out + weights[..., :memory] @ call.memory_v
    if call.relative_v is not None:
        table = call.relative_v[:, _apart(call.relative_v, weights, v)]
        out = out + torch.einsum("...hgmn,hmnd->...hgmd", weights[..., memory:], table)
    return out


def run(call: GatherCall) -> Tensor:
    """Attention within every group by its definition."""
    return mix(call, dropout(weights(call), call.dropout))


def _apart(table: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """Rows of a relative table for every pair of ranks, (members, picks)."""
    reach = table.shape[-2] // 2
    i, j = (torch.arange(x.shape[-2], device=table.device) for x in (queries, keys))
    return (j - i[:, None]).clamp(-reach, reach) + reach
