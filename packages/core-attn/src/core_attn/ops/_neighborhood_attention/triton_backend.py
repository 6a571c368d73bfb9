"""Neighborhood attention on a GPU: its blocks are groups, its windows lists of keys."""

import torch
from torch import Tensor

from .._gather_attention.triton_backend import attend, misfit, reluctant, seed_for
from .._gather_attention.triton_call import Inputs
from .._normal import one_batch, wide
from .._recompute import twice_differentiable
from . import reference
from .call import NeighborhoodCall
from .tensors import FLOATS, Tensors

__all__ = ["refuses", "reluctant", "run"]


def run(call: NeighborhoodCall) -> Tensor:
    """Brings the arguments to the form of the kernels of `gather_attention`."""
    members, keys = (x[None, None] for x in call.places())
    q, k, v = (one_batch(x) for x in (call.q, call.k, call.v))
    bias = None if call.slot_bias is None else call.slot_bias[None, :, None, None, :]
    global_k, global_v = (
        None if x is None else one_batch(x)[:, :, None] for x in (call.global_k, call.global_v)
    )
    global_bias, added = (
        None if x is None else one_batch(x) for x in (call.global_bias, call.added)
    )
    out = attend(
        Inputs(
            q=q, k=k, v=v, queries=members, keys=keys, ranked=_ranked(call), bias=bias,
            extra_k=global_k, extra_v=global_v, extra_bias=global_bias, added=added,
            seed=seed_for(call),
            window=[axis.window for axis in call.axes] if call.relative else None,
            masked=call.mask_padding, by_member=False, causal=False, self_bias=0.0,
            scale=call.scale, dropout=call.dropout,
        )
    )  # fmt: skip
    out = out.reshape(*call.q.shape[:-1], call.v.shape[-1])
    if call.dropout:  # no second run would drop the same weights
        return out
    return twice_differentiable(
        out, "neighborhood_attention", Tensors.define, Tensors.of(call), FLOATS
    )


def _ranked(call: NeighborhoodCall) -> Tensor | None:
    """What relative tables add to the score of every query and coordinate of a slot.

    A window of a map of blocks has as many coordinates as it has slots along an axis, so this is
    about as large as the queries, and its gradient is torch's.
    """
    if call.relative is None:
        return None
    q, columns = one_batch(call.q).to(wide(call.q)), []
    members, _ = call.places()
    inside = call.ranks(tuple(axis.members for axis in call.axes))
    for axis, table, rank in zip(call.axes, call.relative, inside, strict=True):
        products = q @ table.to(q.dtype).transpose(-1, -2)
        of_block = rank[None, :, None].expand(*members.shape, 1)
        of_query = reference.in_order(of_block, members, q.shape[2])
        row = torch.arange(axis.window, device=q.device) - of_query + axis.window - 1
        columns.append(products.gather(3, row.expand(*q.shape[:3], -1)))
    return torch.cat(columns, -1)


def refuses(call: NeighborhoodCall) -> str | None:
    """It takes 16- and 32-bit floats on a GPU."""
    return misfit(Tensors.of(call), FLOATS)
