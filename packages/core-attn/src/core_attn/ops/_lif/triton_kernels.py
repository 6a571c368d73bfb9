"""lif on a GPU: one program for some channels of one text, from token to token.

Per token and channel 8 bytes forward and 16 backward (the membranes before their reset are written
in a first pass and read in a second); bound by the latency of the chain, as wkv.
"""
# What triton compiles is not typed as Python.
# pyright: reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._along_tokens.triton_launch import over_channels
from .._triton_common import Launch


@triton.jit
def forward(
    x, state, spikes, last, tokens, channels, tau, threshold, KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Spikes and the membranes after them; with KEEP the membranes before their reset instead."""
    text, c = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = c < channels
    membrane = tl.load(state + text * channels + c, there, 0.0)
    row = text.to(tl.int64) * tokens * channels + c
    for _ in range(tokens):
        h = membrane + (tl.load(x + row, there, 0.0) - membrane) / tau
        fires = h - threshold >= 0
        tl.store(spikes + row, h if KEEP else tl.where(fires, 1.0, 0.0), there)
        membrane = tl.where(fires, 0.0, h)
        row += channels
    if not KEEP:
        tl.store(last + text * channels + c, membrane, there)


@triton.jit
def backward(
    kept, grad, grad_last, dx, dstate, tokens, channels, tau, threshold, BLOCK: tl.constexpr
):
    """Gradients of currents and membranes."""
    text, c = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = c < channels
    dv = tl.load(grad_last + text * channels + c, there, 0.0)
    row = (text.to(tl.int64) + 1) * tokens * channels + c
    for _ in range(tokens):
        row -= channels
        h = tl.load(kept + row, there, 0.0)
        z = 3.141592653589793 * (h - threshold)
        slope = 1.0 / (1.0 + z * z)
        stays = tl.where(h - threshold >= 0, 0.0, 1.0)
        dh = tl.load(grad + row, there, 0.0) * slope + dv * (stays - h * slope)
        tl.store(dx + row, dh / tau, there)
        dv = dh * (1.0 - 1.0 / tau)
    tl.store(dstate + text * channels + c, dv, there)


def plan_forward(x, state, tau, threshold) -> tuple[Launch, tuple[Tensor, Tensor]]:
    """The launch of the forward pass, and the spikes and membranes that it fills."""
    spikes, last = torch.empty_like(x), torch.empty_like(state)
    launch = over_channels(
        forward, x, x=x, state=state, spikes=spikes, last=last, tau=tau, threshold=threshold,
        KEEP=False,
    )  # fmt: skip
    return launch, (spikes, last)


def plan_backward(
    grad, grad_last, x, state, tau, threshold
) -> tuple[list[Launch], tuple[Tensor, Tensor]]:
    """The forward kernel for the membranes, then the backward one."""
    kept, dx, dstate = torch.empty_like(x), torch.empty_like(x), torch.empty_like(state)
    numbers = {"tau": tau, "threshold": threshold}
    keep = over_channels(
        forward, x, x=x, state=state, spikes=kept, last=state, **numbers, KEEP=True
    )
    back = over_channels(
        backward, x, kept=kept, grad=grad, grad_last=grad_last, dx=dx, dstate=dstate, **numbers
    )
    return [keep, back], (dx, dstate)
