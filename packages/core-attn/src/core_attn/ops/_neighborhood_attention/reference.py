"""What neighborhood attention is: plain torch, in any dtype, differentiable at will."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._dropout.operator import dropout
from .._gather_attention.reference import take
from .call import NeighborhoodCall


def scores(call: NeighborhoodCall) -> Tensor:
    """The scores (*batch, heads, blocks, members, slots + globals) before the softmax."""
    members, keys = call.places()
    wide = torch.promote_types(call.q.dtype, torch.float32)
    q = take(call.q, members.expand(*call.q.shape[:-2], -1, -1)).to(wide)
    k = _windows(call.k, keys).to(wide)
    s = call.scale * (q @ k.transpose(-1, -2))
    if call.relative is not None:
        inside = call.ranks(tuple(axis.members for axis in call.axes))
        slots = call.ranks(tuple(axis.window for axis in call.axes))
        for axis, table, i, j in zip(call.axes, call.relative, inside, slots, strict=True):
            rows = table.to(wide)[:, j - i[:, None] + axis.window - 1]
            s = s + torch.einsum("...hbmd,hmsd->...hbms", q, rows.expand(q.shape[-4], -1, -1, -1))
    if call.slot_bias is not None:
        s = s + call.slot_bias.to(wide)[:, None, None]
    if call.mask_padding:
        s = s.masked_fill((keys < 0)[:, None], -torch.inf)
    if call.global_k is not None:
        everywhere = call.scale * (q @ call.global_k.to(wide).transpose(-1, -2)[..., None, :, :])
        if call.global_bias is not None:
            everywhere = everywhere + take(call.global_bias.to(wide), _like(members, call.q))
        s = torch.cat([s, everywhere], -1)
    return s


def weights(call: NeighborhoodCall) -> Tensor:
    """The weights (*batch, heads, blocks, members, slots + globals), before dropout."""
    s = scores(call)
    blind = (s == -torch.inf).all(-1, keepdim=True)
    return s.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0).to(call.q.dtype)


def run(call: NeighborhoodCall) -> Tensor:
    """Neighborhood attention by its definition."""
    p = dropout(weights(call), call.dropout)
    members, keys = call.places()
    window = p[..., : call.slots]
    if call.added is not None:
        window = window + take(call.added, _like(members, call.q))
    out = window @ _windows(call.v, keys)
    if call.global_v is not None:
        out = out + p[..., call.slots :] @ call.global_v[..., None, :, :]
    return in_order(out, members, call.q.shape[-2])


def in_order(x: Tensor, members: Tensor, queries: int) -> Tensor:
    """(*batch, heads, blocks, members, dim) as (*batch, heads, queries, dim), in raster order."""
    places = torch.arange(members.numel(), device=members.device)
    at = places.new_zeros(queries + 1)  # the last takes what reaches beyond the map
    at = at.scatter(0, members.flatten().remainder(queries + 1), places)
    return x.flatten(-3, -2).index_select(-2, at[:queries])


def _windows(x: Tensor, keys: Tensor) -> Tensor:
    """Rows (*batch, heads, blocks, slots, dim) of a map, zeros outside."""
    return take(
        F.pad(x, (0, 0, 0, 1)), keys.remainder(x.shape[-2] + 1).expand(*x.shape[:-2], -1, -1)
    )


def _like(members: Tensor, q: Tensor) -> Tensor:
    return members.expand(*q.shape[:-2], -1, -1)
