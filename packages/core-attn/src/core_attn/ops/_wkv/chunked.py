"""wkv in chunks: inside of one by doubling, from one to the next by its state."""

import torch
from torch import Tensor

from .call import WkvCall

CHUNK = 64


def run(call: WkvCall) -> tuple[Tensor, Tensor]:
    """The recurrence of the sums is associative: log2(chunk) passes over each chunk."""
    state, out = call.state, []
    for k, v in zip(call.k.split(CHUNK, 1), call.v.split(CHUNK, 1), strict=True):
        above, below, top = _sums(k, v, call.log_decay, state)
        now = call.bonus + k
        highest = torch.maximum(top[:, :-1], now).detach()
        past, present = (top[:, :-1] - highest).exp(), (now - highest).exp()
        out.append((past * above[:, :-1] + present * v) / (past * below[:, :-1] + present))
        state = torch.stack((above[:, -1], below[:, -1], top[:, -1]), 1)
    return torch.cat(out, 1) if out else torch.zeros_like(call.v), state


def _sums(k: Tensor, v: Tensor, w: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Numerator, denominator and scale before the first token and after each."""
    above = torch.cat((state[:, :1], v), 1)
    below = torch.cat((state[:, 1:2], torch.ones_like(v)), 1)
    top = torch.cat((state[:, 2:].detach(), k), 1)
    constant = top.detach()
    # Entry i stands for what it adds, e^(top_i); gradients of k enter through this factor.
    grow = (top - constant).exp()
    above, below, top = above * grow, below * grow, constant
    step = 1
    while step < top.shape[1]:
        earlier = top[:, :-step] + (step * w)
        highest = torch.maximum(earlier, top[:, step:]).detach()
        past, present = (earlier - highest).exp(), (top[:, step:] - highest).exp()
        above = torch.cat((above[:, :step], past * above[:, :-step] + present * above[:, step:]), 1)
        below = torch.cat((below[:, :step], past * below[:, :-step] + present * below[:, step:]), 1)
        top = torch.cat((top[:, :step], highest), 1)
        step *= 2
    return above, below, top
