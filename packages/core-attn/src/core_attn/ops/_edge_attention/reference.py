"""What edge_attention is: plain torch, in any dtype, differentiable any number of times."""

import torch
from torch import Tensor

from .._dropout.operator import dropout
from .angles import angle_legendre
from .call import EdgeCall


def run(call: EdgeCall) -> Tensor:
    """Every atom's edges padded to the most that one has."""
    layout = call.layout()
    padded = layout.padded
    if layout.longest == 0:
        return call.q.new_zeros(*call.q.shape[:2], call.v.shape[2]) + 0 * call.q.sum()
    rows = slice(0, 1) if call.first_only else slice(None)
    table = [p[:, None, rows] for p in angle_legendre(padded(call.direction), len(call.degrees))]
    queries = call.q[:, :, None] if call.first_only else padded(call.q).transpose(1, 2)
    keys, values = (padded(x).transpose(1, 2) for x in (call.k, call.v))
    groups = zip(table, *(x.split(call.degrees, -1) for x in (queries, keys)), strict=True)
    scores = call.scale * sum(p * (a @ b.transpose(-1, -2)) for p, a, b in groups)
    bias = call.k.new_zeros(call.k.shape[0]) if call.bias is None else call.bias
    scores = scores + padded(bias, -torch.inf)[:, None, None]
    if call.pair_bias is not None:
        scores = scores + call.pair_bias[:, :, rows]
    blind = (scores == -torch.inf).all(-1, keepdim=True)
    weights = scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)
    if call.pattern is not None:
        weights = call.pattern(weights)
    weights = dropout(weights, call.dropout)
    heads = (weights @ values).transpose(1, 2)
    if call.first_only:
        return torch.where(call.offsets.diff()[:, None, None] > 0, heads[:, 0], 0.0)
    return layout.packed(heads)
