"""wkv on a GPU: one program for some channels of one text, from token to token.

Per token and channel 12 bytes forward and 32 backward (the sums before each token are written in a
first pass and read in a second), two exp and some 20 flops: bound by the latency of the chain, so
that speed comes from the number of programs, batch * channels / BLOCK.
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
def shares(a, b):
    """e^(a - max(a, b)) and e^(b - max(a, b))."""
    most = tl.maximum(a, b)
    return tl.exp(a - most), tl.exp(b - most)


@triton.jit
def forward(
    k, v, w, u, state, out, last, sums, tokens, channels, KEEP: tl.constexpr, BLOCK: tl.constexpr
):
    """Means and the state after them; with KEEP the sums before each token instead."""
    text, c = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = c < channels
    rate, bonus = tl.load(w + c, there, 0.0), tl.load(u + c, there, 0.0)
    begin = state + text.to(tl.int64) * 3 * channels + c
    p, q = tl.load(begin, there, 0.0), tl.load(begin + channels, there, 0.0)
    o = tl.load(begin + 2 * channels, there, 0.0)
    row = text.to(tl.int64) * tokens * channels + c
    for _ in range(tokens):
        key, value = tl.load(k + row, there, 0.0), tl.load(v + row, there, 0.0)
        if KEEP:
            place = sums + row
            size = tl.num_programs(0).to(tl.int64) * tokens * channels
            tl.store(place, p, there)
            tl.store(place + size, q, there)
            tl.store(place + 2 * size, o, there)
        else:
            past, present = shares(o, bonus + key)
            tl.store(out + row, (past * p + present * value) / (past * q + present), there)
        old, new = shares(o + rate, key)
        p, q, o = old * p + new * value, old * q + new, tl.maximum(o + rate, key)
        row += channels
    if not KEEP:
        end = last + text.to(tl.int64) * 3 * channels + c
        tl.store(end, p, there)
        tl.store(end + channels, q, there)
        tl.store(end + 2 * channels, o, there)


@triton.jit
def backward(
    k, v, w, u, sums, grad, grad_last, dk, dv, dw, du, dstate, tokens, channels,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients; those of w and u per text, so that none waits for another."""
    text, c = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = c < channels
    rate, bonus = tl.load(w + c, there, 0.0), tl.load(u + c, there, 0.0)
    begin = text.to(tl.int64) * 3 * channels + c
    dp, dq = (
        tl.load(grad_last + begin, there, 0.0),
        tl.load(grad_last + begin + channels, there, 0.0),
    )
    d_rate, d_bonus = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    size = tl.num_programs(0).to(tl.int64) * tokens * channels
    row = (text.to(tl.int64) + 1) * tokens * channels + c
    for _ in range(tokens):
        row -= channels
        key, value = tl.load(k + row, there, 0.0), tl.load(v + row, there, 0.0)
        p, q = tl.load(sums + row, there, 0.0), tl.load(sums + size + row, there, 0.0)
        o = tl.load(sums + 2 * size + row, there, 0.0)
        old, new = shares(o + rate, key)
        d_key, d_value = new * (dp * value + dq), new * dp
        d_rate += old * (p * dp + q * dq)
        dp, dq = old * dp, old * dq
        past, present = shares(o, bonus + key)
        below = 1.0 / (past * q + present)
        up = tl.load(grad + row, there, 0.0) * below
        down = -up * (past * p + present * value) * below
        now = present * (up * value + down)
        d_bonus += now
        tl.store(dk + row, d_key + now, there)
        tl.store(dv + row, d_value + present * up, there)
        dp, dq = dp + past * up, dq + past * down
    tl.store(dw + text * channels + c, d_rate, there)
    tl.store(du + text * channels + c, d_bonus, there)
    tl.store(dstate + begin, dp, there)
    tl.store(dstate + begin + channels, dq, there)
    tl.store(dstate + begin + 2 * channels, tl.zeros([BLOCK], tl.float32), there)


def plan_forward(k, v, w, u, state) -> tuple[Launch, tuple[Tensor, Tensor]]:
    """The launch of the forward pass, and the means and the state that it fills."""
    out, last = torch.empty_like(k), torch.empty_like(state)
    launch = over_channels(
        forward, k, k=k, v=v, w=w, u=u, state=state, out=out, last=last, sums=out, KEEP=False
    )
    return launch, (out, last)


def plan_backward(
    grad, grad_last, k, v, w, u, state
) -> tuple[list[Launch], tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """The forward kernel for the sums, then the backward one; dw and du are by text."""
    batch, _, channels = k.shape
    sums, dk, dv = k.new_empty(3, *k.shape), torch.empty_like(k), torch.empty_like(v)
    dw, du = k.new_empty(2, batch, channels)
    dstate = torch.empty_like(state)
    inputs = {"k": k, "v": v, "w": w, "u": u}
    keep = over_channels(forward, k, **inputs, state=state, out=k, last=state, sums=sums, KEEP=True)
    back = over_channels(
        backward, k, **inputs, sums=sums, grad=grad, grad_last=grad_last, dk=dk, dv=dv, dw=dw,
        du=du, dstate=dstate,
    )  # fmt: skip
    return [keep, back], (dk, dv, dw, du, dstate)
