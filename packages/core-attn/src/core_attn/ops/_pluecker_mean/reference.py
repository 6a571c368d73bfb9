"""What the mean of normed Pluecker coordinates is."""

import torch
from torch import Tensor

from .call import PlueckerCall


def run(call: PlueckerCall) -> Tensor:
    """One offset after the other, each plane by its definition."""
    z = call.z.to(torch.promote_types(call.z.dtype, torch.float32))
    (i, j), total = call.pairs, z.new_zeros(*z.shape[:2], call.pairs.shape[1])
    tokens = z.shape[1]
    for offset in call.offsets:
        first = min(max(offset, 0), tokens)
        last = max(tokens + min(offset, 0), first)  # no pairs keep the sum on the graph, too
        u, v = z[:, first:last], z[:, first - offset : last - offset]
        p = u[..., i] * v[..., j] - u[..., j] * v[..., i]
        # Below eps the norm is a constant, so that parallel vectors have finite gradients.
        p = p * p.square().sum(-1, keepdim=True).clamp(min=call.eps**2).rsqrt()
        total = total + torch.nn.functional.pad(p, (0, 0, first, tokens - last))
    return (total / call.counts()).to(call.z.dtype)
