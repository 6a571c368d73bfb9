"""What the Triton kernels share: how tensors are addressed, masked, dropped and launched."""
# What triton compiles is not typed as Python.
# pyright: reportArgumentType=false

import functools
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
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
    """A (batch, heads, queries, keys) tensor; the stride of an axis it broadcasts over is None.

    `width` keys of a row may be read or written, those that there are and then perhaps padding.
    A plane that is not given has no data: Triton 3.6 cannot tell a record with Nones from None.
    """

    data: Any
    batch: int | None
    head: int | None
    query: int | None
    key: int | None
    width: int

    @classmethod
    def of(cls, x: Tensor | None, full: tuple[int, ...]) -> "Plane":
        """Addresses `x`, which broadcasts to the shape `full`; None is a plane without data.

        Rows that do not begin at multiples of 16 entries are copied to where they do: else every
        entry is a load of its own, with an address in registers.
        """
        if x is None:
            return cls(None, None, None, None, None, 0)
        width = x.shape[3]
        if x.shape[2] > 1 and width > 1 and not _aligned(x):
            width = -(-width // 16) * 16
            x = F.pad(x, (0, width - x.shape[3]))[..., : x.shape[3]]
        sizes = zip(x.shape, full, x.stride(), strict=True)
        axes = (stride if have == want else None for have, want, stride in sizes)
        batch, head, query, key = axes
        return cls(x, batch, head, query, key, width)


def plane_like(x: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory for a plane, its rows beginning at multiples of 16 entries."""
    *rows, keys = shape
    return x.new_empty((*rows, -(-keys // 16) * 16), dtype=dtype)[..., :keys]


def _aligned(x: Tensor) -> bool:
    strided = (stride for stride, size in zip(x.stride()[:3], x.shape, strict=False) if size > 1)
    return x.stride(3) == 1 and x.data_ptr() % 16 == 0 and all(s % 16 == 0 for s in strided)


class Launch(NamedTuple):
    """One kernel with all it needs to run, as data: the same is launched, compiled and listed."""

    kernel: Any
    programs: int
    args: dict[str, Any]
    splits: int = 1

    def __call__(self) -> None:
        """Runs the kernel, on the device where its first argument lies."""
        if not self.programs:
            return
        device = next(iter(self.args.values())).data.device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            self.kernel[(self.programs, self.splits)](**self.args)


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
def weights_under(s, top):
    """The exp2 of scores above their maxima; rows that see nothing are 0, not NaN."""
    return tl.exp2(s - tl.where(top == float("-inf"), 0.0, top)[:, None])


@triton.jit
def online_softmax(s, top, total):
    """A step of the online softmax, of rows whose scores so far have the maximum and sum given.

    Returns the weights of the scores `s`, the factor by which what was summed before shrinks, the
    new maximum and the new sum. Scores are in units of log 2.
    Source: Milakov and Gimelshein, 2018, arXiv 1805.02867, algorithm 3.
    """
    new_top = tl.maximum(top, tl.max(s, 1))
    safe_top = tl.where(new_top == float("-inf"), 0.0, new_top)
    p = tl.exp2(s - safe_top[:, None])
    shrink = tl.exp2(top - safe_top)
    return p, shrink, new_top, total * shrink + tl.sum(p, 1)


@triton.jit
def softmax_backward(s, norm, dp, mean, factor):
    """Its way back: the weights of scores `s` after dropout, and the gradient of the scores.

    `norm` is the rows' log normalizer, `dp` the gradient of the weights, `mean` the sum over a row
    of weight times gradient, `factor` what dropout multiplied the weights by, None without.
    Source: Dao, 2023, "FlashAttention-2", arXiv 2307.08691, algorithm 2.
    """
    p = tl.exp2(s - norm[:, None])
    if factor is None:
        return p, p * (dp - mean[:, None])
    else:
        return p * factor, p * (dp * factor - mean[:, None])


@triton.jit
def normalizer(total):
    """What rows are divided by: the sum of their weights, 1 where nothing is seen."""
    return tl.where(total == 0.0, 1.0, total)


@triton.jit
def log_normalizer(top, total):
    """Its logarithm in base 2, inf where nothing is seen."""
    return tl.where(total == 0.0, float("inf"), top + tl.log2(normalizer(total)))


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
    """Which entries of rows padded to BLOCK_D there are; for where some may be missing."""
    if DIM < BLOCK_D:
        inside = (tl.arange(0, BLOCK_D) < DIM)[None, :]
        if exists is not None:
            inside = exists[:, None] & inside
        return inside
    else:
        return exists[:, None]


@triton.jit
def load_rows(start, offset, exists, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Loads the rows at start + offset as (rows, BLOCK_D), zero where they do not exist.

    None for `exists` says that all do.
    """
    at = start + offset[:, None] + tl.arange(0, BLOCK_D)[None, :]
    if DIM == BLOCK_D and exists is None:
        return tl.load(at)
    else:
        return tl.load(at, mask=row_mask(exists, DIM, BLOCK_D), other=0.0)


@triton.jit
def load_numbers(at, exists, other):
    """Loads one number a row, `other` where rows do not exist; None says that all do."""
    if exists is None:
        return tl.load(at)
    else:
        return tl.load(at, mask=exists, other=other)


@triton.jit
def store_rows(start, offset, rows, exists, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Stores (rows, BLOCK_D) at start + offset, in the dtype that is there."""
    at = start + offset[:, None] + tl.arange(0, BLOCK_D)[None, :]
    rows = rows.to(start.dtype.element_ty)
    if DIM == BLOCK_D and exists is None:
        tl.store(at, rows)
    else:
        tl.store(at, rows, mask=row_mask(exists, DIM, BLOCK_D))


@triton.jit
def plane_pointers(x, batch, head, more, i, j, INDEX: tl.constexpr):
    """Pointers to the entries (i, j) of a plane, `more` heads after `head`."""
    at = x.data
    if x.batch is not None:
        at += tl.cast(batch, tl.int64) * x.batch
    if x.head is not None:
        at += tl.cast(head, tl.int64) * x.head
        if more is not None:
            at += more.to(INDEX) * x.head
    if x.query is not None:
        at += i.to(INDEX) * x.query
    if x.key is not None:
        at += j.to(INDEX) * x.key
    return at


@triton.jit
def load_plane(x, batch, head, more, i, j, exists, EDGE: tl.constexpr, INDEX: tl.constexpr):
    """Loads the entries (i, j) in a shape that broadcasts; rows that do not exist are 0.

    Keys beyond the width are left out where the tile may be at an edge.
    """
    at = plane_pointers(x, batch, head, more, i, j, INDEX)
    inside = None
    if exists is not None:
        if x.query is not None or (more is not None and x.head is not None):
            inside = exists
    if EDGE and x.key is not None:
        inside = j < x.width if inside is None else inside & (j < x.width)
    if inside is None:
        return tl.load(at)
    else:
        return tl.load(at, mask=inside, other=0)


@triton.jit
def _random_bits(seed, batch_head, i, j):
    """Four words of Philox with 7 rounds, counted by position: any kernel finds the same ones.

    Half of the seed is a counter, since a wider key would take 7 more registers for its round keys.
    Source: Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4.3.
    """
    key = tl.load(seed)
    low, high = (key & 0xFFFFFFFF).to(tl.uint32), (key >> 32).to(tl.int32)
    return tl.philox(low, j, i, batch_head, high, n_rounds=7)


@triton.jit
def _kept(bits, dropout):
    return tl.uint_to_uniform_float(bits) >= dropout


@triton.jit
def dropout_factor(seed, dropout, batch_head, i, start, BLOCK_K: tl.constexpr):
    """(rows, BLOCK_K): 0 where weight (i, start + 0 ...) is dropped, else 1 / (1 - dropout).

    `i` is (rows, 1) and `start` divides by 4: one draw serves four keys in a row.
    """
    four = start // 4 + tl.arange(0, BLOCK_K // 4)
    a, b, c, d = _random_bits(seed, batch_head, i, four[None, :])
    a, b = _kept(a, dropout).to(tl.int8), _kept(b, dropout).to(tl.int8)
    c, d = _kept(c, dropout).to(tl.int8), _kept(d, dropout).to(tl.int8)
    kept = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [a.shape[0], BLOCK_K])
    return tl.where(kept != 0, 1.0 / (1.0 - dropout), 0.0)


@triton.jit
def dropout_factor_at(seed, dropout, batch_head, i, j):
    """The same for weights (i, j) of any order, at a draw for each."""
    bits, _, _, _ = _random_bits(seed, batch_head, i, j)
    return tl.where(_kept(bits, dropout), 1.0 / (1.0 - dropout), 0.0)
