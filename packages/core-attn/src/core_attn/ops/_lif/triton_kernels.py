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

BLOCK = 32


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


def grid(x: Tensor) -> tuple[int, int]:
    """Programs: texts and blocks of channels."""
    return x.shape[0], triton.cdiv(x.shape[2], BLOCK)


def run_forward(x, state, tau, threshold) -> tuple[Tensor, Tensor]:
    """Launches the forward kernel."""
    spikes, last = torch.empty_like(x), torch.empty_like(state)
    sizes = x.shape[1], x.shape[2], tau, threshold
    forward[grid(x)](x, state, spikes, last, *sizes, KEEP=False, BLOCK=BLOCK)
    return spikes, last


def run_backward(grad, grad_last, x, state, tau, threshold) -> tuple[Tensor, Tensor]:
    """Launches the forward kernel for the membranes, then the backward one."""
    kept, dx, dstate = torch.empty_like(x), torch.empty_like(x), torch.empty_like(state)
    sizes = x.shape[1], x.shape[2], tau, threshold
    forward[grid(x)](x, state, kept, state, *sizes, KEEP=True, BLOCK=BLOCK)
    backward[grid(x)](kept, grad, grad_last, dx, dstate, *sizes, BLOCK=BLOCK)
    return dx, dstate
