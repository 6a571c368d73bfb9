"""What WKV is: two sums with one running maximum, one token at a time."""

import torch
from torch import Tensor

from .call import WkvCall


def run(call: WkvCall) -> tuple[Tensor, Tensor]:
    """The recurrence by its definition; the scale `top` is a constant to the gradients."""
    k, v, w, u, state = call
    above, below, top = state.unbind(1)
    top, out = top.detach(), []
    for k_t, v_t in zip(k.unbind(1), v.unbind(1), strict=True):
        now = u + k_t
        highest = torch.maximum(top, now).detach()
        past, present = (top - highest).exp(), (now - highest).exp()
        out.append((past * above + present * v_t) / (past * below + present))
        highest = torch.maximum(top + w, k_t).detach()
        past, present = (top + w - highest).exp(), (k_t - highest).exp()
        above, below, top = past * above + present * v_t, past * below + present, highest
    stacked = torch.stack(out, 1) if out else k * v
    return stacked, torch.stack((above, below, top), 1)
