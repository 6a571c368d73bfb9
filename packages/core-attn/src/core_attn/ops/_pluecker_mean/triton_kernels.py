"""pluecker_mean on a GPU: one program per token.

As the CPU's kernel (`_along_tokens/kernel/pluecker.c`), whose comment has the equations: one plane
u ^ w per token. Forward is bound by writing the coordinates, dim (dim - 1) / 2 numbers a token.
Backward, a program gathers what its token gets as u and as partner of later (and earlier) tokens,
so that nothing is added by two programs; it reads the gradient of each partner again, which the
second-level cache holds.
"""
# What triton compiles is not typed as Python.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton_common import Launch


@triton.jit
def coordinate(i, j, dim):
    """The number of the pair i < j."""
    return i * (2 * dim - i - 1) // 2 + j - i - 1


@triton.jit
def inside(token, offset, tokens):
    """Whether the partner of a token exists."""
    return (token - offset >= 0) & (token - offset < tokens)


@triton.jit
def vector(z, token, f, dim):
    """One token's features, zeros beyond them."""
    return tl.load(z + token.to(tl.int64) * dim + f, f < dim, 0.0)


@triton.jit
def part(u, v, square):
    """The share of v along u, the rest of it, and the rest's squared norm."""
    along = tl.where(square > 0, tl.sum(u * v) / tl.where(square > 0, square, 1.0), 0.0)
    rest = v - along * u
    return along, rest, tl.sum(rest * rest)


@triton.jit
def forward(z, offsets, out, tokens, dim, eps, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """The mean coordinates of one token."""
    t, text = tl.program_id(0), tl.program_id(1)
    z += text.to(tl.int64) * tokens * dim
    f = tl.arange(0, BLOCK)
    u = vector(z, t, f, dim)
    square = tl.sum(u * u)
    w, n = tl.zeros([BLOCK], tl.float32), 0
    for o in tl.static_range(COUNT):
        offset = tl.load(offsets + o)
        there = inside(t, offset, tokens)
        v = vector(z, tl.where(there, t - offset, t), f, dim)
        _, rest, apart = part(u, v, square)
        norm = tl.maximum(tl.sqrt(square * apart), eps)
        w += tl.where(there, rest / norm, 0.0)
        n += there.to(tl.int32)
    w /= tl.maximum(n, 1).to(tl.float32)
    plane = u[:, None] * w[None, :] - w[:, None] * u[None, :]
    i, j = f[:, None], f[None, :]
    pairs = dim * (dim - 1) // 2
    place = out + (text.to(tl.int64) * tokens + t) * pairs + coordinate(i, j, dim)
    tl.store(place, plane, (i < j) & (j < dim))


@triton.jit
def matrix(grad, t, dim, BLOCK: tl.constexpr):
    """One token's gradient as an antisymmetric matrix."""
    pairs = dim * (dim - 1) // 2
    i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    row = grad + t.to(tl.int64) * pairs
    upper = tl.load(row + coordinate(i, j, dim), (i < j) & (j < dim), 0.0)
    lower = tl.load(row + coordinate(j, i, dim), (j < i) & (i < dim), 0.0)
    return upper - lower


@triton.jit
def backward(z, offsets, grad, dz, tokens, dim, eps, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """The gradient of one token's vector."""
    t, text = tl.program_id(0), tl.program_id(1)
    z += text.to(tl.int64) * tokens * dim
    grad += text.to(tl.int64) * tokens * (dim * (dim - 1) // 2)
    f = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for o in tl.static_range(2 * COUNT):  # as u of its partners, then as partner of others
        offset = tl.load(offsets + o % COUNT)
        as_u = o < COUNT
        asking = t if as_u else t + offset
        exists = (asking >= 0) & (asking < tokens)
        asking = tl.where(exists, asking, t)
        exists = exists & inside(asking, offset, tokens)
        partner = tl.where(exists, asking - offset, t)
        u, v = vector(z, asking, f, dim), vector(z, partner, f, dim)
        n = 0
        for other in tl.static_range(COUNT):
            n += inside(asking, tl.load(offsets + other), tokens).to(tl.int32)
        share = 1.0 / tl.maximum(n, 1).to(tl.float32)
        square = tl.sum(u * u)
        along, rest, apart = part(u, v, square)
        norm = tl.sqrt(square * apart)
        is_free = norm > eps
        norm = tl.maximum(norm, eps)
        g = matrix(grad, asking, dim, BLOCK)
        gu = tl.sum(g * u[None, :], 1) * share
        gv = tl.sum(g * rest[None, :], 1) * share
        s = tl.where(is_free, tl.sum(u * gv) / norm, 0.0)
        mu = (gu + s * rest * square / norm) / norm
        mv = (gv - s * u * apart / norm) / norm
        change = mv + along * mu if as_u else -mu
        total += tl.where(exists, change, 0.0)
    tl.store(dz + (text.to(tl.int64) * tokens + t) * dim + f, total, f < dim)


def plan_forward(z: Tensor, offsets: list[int], eps: float) -> tuple[Launch, Tensor]:
    """The launch of the forward pass, and the coordinates that it fills."""
    batch, tokens, dim = z.shape
    out = z.new_empty(batch, tokens, dim * (dim - 1) // 2)
    return _over_tokens(forward, z, offsets, eps, out=out), out


def plan_backward(grad: Tensor, z: Tensor, offsets: list[int], eps: float) -> tuple[Launch, Tensor]:
    """The launch of the backward pass, and the gradient that it fills."""
    dz = torch.empty_like(z)
    return _over_tokens(backward, z, offsets, eps, grad=grad, dz=dz), dz


def _over_tokens(kernel: Any, z: Tensor, offsets: list[int], eps: float, **of: Tensor) -> Launch:
    batch, tokens, dim = z.shape
    block = triton.next_power_of_2(dim)
    args = {
        "z": z, "offsets": torch.tensor(offsets, device=z.device, dtype=torch.int32), **of,
        "tokens": tokens, "dim": dim, "eps": eps, "COUNT": len(offsets), "BLOCK": block,
        "num_warps": 8 if block > 64 else 4,
    }  # fmt: skip
    return Launch(kernel, tokens, args, batch)
