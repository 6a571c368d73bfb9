"""What the Triton kernels share: how tensors are addressed, masked, dropped and launched."""
# What triton compiles is not typed as Python.
# pyright: reportArgumentType=false

import functools
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._triton_host import INTERPRETED

LOG2E = tl.constexpr(1.4426950408889634)
WIDEN = tl.constexpr(INTERPRETED)


class Rows(NamedTuple):
    """A (batch, heads, tokens, dim) tensor, dim contiguous, as kernels take it."""

    data: Any
    batch: int
    head: int
    token: int | None

    @classmethod
    def of(cls, x: Tensor) -> "Rows":
        """Addresses `x`, or a contiguous copy where its dims are not side by side."""
        x = x if x.stride(3) == 1 else x.contiguous()
        return cls(x, *x.stride()[:3])


class Plane(NamedTuple):
    """A (batch, heads, queries, keys) tensor; the stride of an axis it broadcasts over is None."""

    data: Any
    batch: int | None
    head: int | None
    query: int | None
    key: int | None

    @classmethod
    def of(cls, x: Tensor | None, full: tuple[int, ...]) -> "Plane | None":
        """Addresses `x`, which broadcasts to the shape `full`; None switches the branch off."""
        if x is None:
            return None
        sizes = zip(x.shape, full, x.stride(), strict=True)
        return cls(x, *(stride if have == want else None for have, want, stride in sizes))


class Launch(NamedTuple):
    """One kernel with all it needs to run, as data: the same is launched, compiled and listed."""

    kernel: Any
    programs: int
    args: dict[str, Any]

    def __call__(self) -> None:
        """Runs the kernel, on the device where its first argument lies."""
        if not self.programs:
            return
        device = next(iter(self.args.values())).data.device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            self.kernel[(self.programs,)](**self.args)


def precision(arch: str) -> str:
    """How float32 products are taken: three tf32 ones, or the float32 matrix cores of AMD."""
    return "ieee" if arch.startswith("gfx") else "tf32x3"


def index_dtype(arch: str, *tensors: Tensor | None) -> tl.dtype:
    """The dtype of row offsets. AMD's buffer instructions want 32 bits, where those are enough.

    On NVIDIA narrow offsets are no gain: they become one 64-bit register per pointer and loop.
    """
    small = all(x is None or x.numel() * x.element_size() < 2**31 for x in tensors)
    return tl.int32 if arch.startswith("gfx") and small else tl.int64


def head_rows(head_map: Sequence[int] | None, device: torch.device) -> Tensor | None:
    """A head map on its device, sent there once."""
    return None if head_map is None else _head_rows(tuple(head_map), device)


@functools.lru_cache(256)
def _head_rows(head_map: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(head_map, dtype=torch.int32, device=device)


@triton.jit
def dot(a, b, added, PRECISION: tl.constexpr):
    """a b + added, in float32."""
    if WIDEN:  # the interpreter would multiply the bits of bfloat16 as integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, added, input_precision=PRECISION)


@triton.jit
def in_log2(bias):
    """A bias in units of log 2, as float32. What is finite stays so: only -inf forbids."""
    least = -3.4028234663852886e38
    scaled = tl.maximum(bias.to(tl.float32) * LOG2E, least)
    return tl.where(bias == float("-inf"), float("-inf"), scaled)


@triton.jit
def displacement(x, batch, head):
    """Entries before the first row of one head of `x`."""
    return tl.cast(batch, tl.int64) * x.batch + tl.cast(head, tl.int64) * x.head


@triton.jit
def origin(x, batch, head):
    """Pointer to the first row of one head of `x`."""
    return x.data + displacement(x, batch, head)


@triton.jit
def row_mask(exists, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Which entries of rows padded to BLOCK_D there are."""
    inside = exists[:, None]
    if DIM < BLOCK_D:
        inside = inside & (tl.arange(0, BLOCK_D) < DIM)[None, :]
    return inside


@triton.jit
def load_rows(start, offset, exists, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Loads the rows at start + offset as (rows, BLOCK_D), zero where they do not exist."""
    at = start + offset[:, None] + tl.arange(0, BLOCK_D)[None, :]
    return tl.load(at, mask=row_mask(exists, DIM, BLOCK_D), other=0.0)


@triton.jit
def store_rows(start, offset, rows, exists, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Stores (rows, BLOCK_D) at start + offset, in the dtype that is there."""
    at = start + offset[:, None] + tl.arange(0, BLOCK_D)[None, :]
    tl.store(at, rows.to(start.dtype.element_ty), mask=row_mask(exists, DIM, BLOCK_D))


@triton.jit
def plane_pointers(x, batch, head, i, j, INDEX: tl.constexpr):
    """Pointers to the entries (i, j) of a plane, of the shape its axes give."""
    at = x.data
    if x.batch is not None:
        at += tl.cast(batch, tl.int64) * x.batch
    if x.head is not None:
        at += tl.cast(head, tl.int64) * x.head
    if x.query is not None:
        at += i.to(INDEX) * x.query
    if x.key is not None:
        at += j.to(INDEX) * x.key
    return at


@triton.jit
def load_plane(x, batch, head, i, j, queries, keys, INDEX: tl.constexpr):
    """Loads the entries (i, j) in a shape that broadcasts; zero outside."""
    at = plane_pointers(x, batch, head, i, j, INDEX)
    if x.query is not None and x.key is not None:
        return tl.load(at, mask=(i < queries) & (j < keys), other=0)
    elif x.query is not None:
        return tl.load(at, mask=i < queries, other=0)
    elif x.key is not None:
        return tl.load(at, mask=j < keys, other=0)
    else:
        return tl.load(at)


@triton.jit
def dropout_factor(seed, dropout, batch_head, i, j):
    """0 where the weight (i, j) is dropped, else 1 / (1 - dropout).

    Philox with 7 rounds, counted by position: every kernel finds the same weights dropped. Half of
    the seed is a counter, since a wider key would take 7 more registers for its round keys.
    Source: Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4.3.
    """
    key = tl.load(seed)
    low, high = (key & 0xFFFFFFFF).to(tl.uint32), (key >> 32).to(tl.int32)
    bits, _, _, _ = tl.philox(low, j, i, batch_head, high, n_rounds=7)
    return tl.where(tl.uint_to_uniform_float(bits) < dropout, 0.0, 1.0 / (1.0 - dropout))
