"""What leaky integrate-and-fire neurons do, one token at a time."""

import math

import torch
from torch import Tensor

from .call import LifCall


def run(call: LifCall) -> tuple[Tensor, Tensor]:
    """The recurrence by its definition."""
    membrane, spikes = call.state, []
    for x in call.x.to(call.state.dtype).unbind(1):
        h = membrane + (x - membrane) / call.tau
        s = fire(h - call.threshold)
        membrane = (1 - s) * h
        spikes.append(s)
    stacked = torch.stack(spikes, 1) if spikes else call.x.clone()
    return stacked.to(call.x.dtype), membrane


def fire(z: Tensor) -> Tensor:
    """1 where z >= 0, else 0, with the slope 1 / (1 + (pi z)^2).

    The value of a step that is constant almost everywhere, and the gradient of atan(pi z) / pi.
    """
    slope = torch.atan(math.pi * z) / math.pi
    return (z >= 0).to(z.dtype) + (slope - slope.detach())
