"""pluecker_mean by one plane per token instead of one per offset, in plain torch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .call import PlueckerCall


def run(call: PlueckerCall) -> Tensor:
    """u ^ w, with w the mean of the partners' normed parts orthogonal to u.

    All planes of a token share u, and |u ^ v| = |u| |v'| for the part v' of v orthogonal to u.
    """
    u = call.z.to(torch.promote_types(call.z.dtype, torch.float32))
    tokens, square = u.shape[1], u.square().sum(-1, keepdim=True)
    w = torch.zeros_like(u)
    for offset in call.offsets:
        first, last = max(offset, 0), tokens + min(offset, 0)
        if first >= last:
            continue
        here, v, s = u[:, first:last], u[:, first - offset : last - offset], square[:, first:last]
        along = (here * v).sum(-1, keepdim=True) / s.clamp(min=torch.finfo(s.dtype).tiny)
        rest = v - along * here
        norm = (s * rest.square().sum(-1, keepdim=True)).clamp(min=call.eps**2).sqrt()
        w = w + F.pad(rest / norm, (0, 0, first, tokens - last))
    w = w / call.counts()
    i, j = call.pairs
    return (u[..., i] * w[..., j] - u[..., j] * w[..., i]).to(call.z.dtype)
