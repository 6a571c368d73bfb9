"""The forward kernel of `attention`: one program per tile of queries, online softmax over keys."""
# What triton compiles is not typed as Python.
# pyright: reportArgumentType=false, reportOptionalSubscript=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton_common import (
    LOG2E,
    Launch,
    Plane,
    Rows,
    displacement,
    dot,
    dropout_factor,
    head_rows,
    in_log2,
    index_dtype,
    load_plane,
    load_rows,
    log_normalizer,
    normalizer,
    online_softmax,
    origin,
    plane_pointers,
    precision,
    store_rows,
)
from .._triton_host import Tiles, as_bytes, rows_like
from .triton_call import Inputs
from .triton_tiles import splits_for


def arguments(x: Inputs, arch: str, tiles: Tiles, packed: bool = True) -> dict[str, Any]:
    """What all kernels take of a call; `packed` says whether a group of heads may share a tile."""
    batch, heads, queries, keys = x.plane
    gate = x.gate if x.gate is None else x.gate[..., None]
    left, right = x.sides
    group = x.group if packed else 1
    return {
        "q": Rows.of(x.q),
        "k": Rows.of(x.k),
        "v": Rows.of(x.v),
        "bias": Plane.of(x.bias, x.plane),
        "mask": Plane.of(as_bytes(x.mask), x.plane),
        "lengths": x.lengths,
        "gate": Plane.of(gate, (batch, heads, queries, 0)),
        "seed": x.seed,
        "k_map": None if group > 1 else head_rows(x.k_map, x.q.device),
        "v_map": None if group > 1 else head_rows(x.v_map, x.q.device),
        "units": heads // group,
        "queries": queries,
        "keys": keys,
        "left": left,
        "right": right,
        "scale": x.scale,
        "dropout": x.dropout,
        "DIM": x.q.shape[3],
        "V_DIM": x.v.shape[3],
        "GROUP": group,
        "PLAIN": not x.full,
        "PRECISION": precision(arch),
        "INDEX": index_dtype(arch, x.q, x.k, x.v, x.bias, x.mask),
        **tiles.options(x.width),
    }


def plan(
    x: Inputs, arch: str, tiles: Tiles | None = None
) -> tuple[list[Launch], tuple[Tensor, Tensor, Tensor]]:
    """The launches of the forward pass and what they will fill: out, ungated heads, lse.

    The heads are empty without a gate; `tiles` take the place of the table's. Few queries of few
    heads would leave most of the GPU idle: their keys are shared out to several programs.
    """
    batch, heads, queries, keys = x.plane
    out = rows_like(x.q, heads, x.v.shape[3])
    ungated = x.q.new_empty(0) if x.gate is None else rows_like(x.q, heads, x.v.shape[3])
    lse = x.q.new_empty(x.q.shape[:3], dtype=torch.float32)
    tiles = tiles or x.tiles(arch, "forward")
    programs = triton.cdiv(queries * x.group, tiles.queries) * batch * (heads // x.group)
    splits = splits_for(arch, programs, keys)
    given = arguments(x, arch, tiles)
    if splits == 1:
        written = {"out": Rows.of(out), "heads": ungated, "lse": lse}
        return [
            Launch(attention_forward, programs, given | written | {"SPLIT": False})
        ], (out, ungated, lse)  # fmt: skip
    parts = x.q.new_empty((splits * batch, *out.shape[1:]), dtype=torch.float32)
    part_lse = lse.new_empty((splits, *lse.shape))
    written = {"out": Rows.of(parts), "heads": ungated, "lse": part_lse, "SPLIT": True}
    combine = {
        "parts": parts, "part_lse": part_lse, "gate": given["gate"], "out": Rows.of(out),
        "heads": ungated, "lse": lse, "splits": splits, "rows": lse.numel(), "head_count": heads,
        "queries": queries, "V_DIM": out.shape[3], "BLOCK_Q": 16, "BLOCK_D": x.width,
        "num_warps": 4,
    }  # fmt: skip
    return [
        Launch(attention_forward, programs, given | written, splits),
        Launch(attention_combine, triton.cdiv(lse.numel(), 16), combine),
    ], (out, ungated, lse)


@triton.jit
def row_offset(x, i, more, INDEX: tl.constexpr):
    """Where row `i` of a head lies, `more` heads after the first of its group."""
    at = i.to(INDEX) * x.token
    if more is not None:
        at += more.to(INDEX) * x.head
    return at


@triton.jit
def forbid(
    s, batch, head, more, i, j, exists, queries, keys, end, bias, mask, left, right,
    EDGE: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Adds the bias to scores in units of log 2 and puts -inf where a key may not be seen.

    Unless the tile may be at an EDGE, every query sees every key but for the mask.
    """
    if bias.data is not None:
        s += in_log2(load_plane(bias, batch, head, more, i, j, exists, EDGE, INDEX))
    if mask.data is not None:
        seen = load_plane(mask, batch, head, more, i, j, exists, EDGE, INDEX)
        s = tl.where(seen != 0, s, float("-inf"))
    if EDGE:
        distance = j - i + (queries - keys)
        seen = j < end
        if left is not None:
            seen &= distance >= -left
        if right is not None:
            seen &= distance <= right
        s = tl.where(seen, s, float("-inf"))
    return s


@triton.jit
def key_tiles(
    first, last, queries, keys, end, left, right, BLOCK_K: tl.constexpr
):  # fmt: skip
    """The keys that some query of first .. last sees, and within them those that all of them see.

    The ranges begin at multiples of BLOCK_K, and the inner one ends at one.
    """
    shift = keys - queries
    low, high, full_low, full_high = 0, end, 0, end
    if left is not None:
        low = tl.maximum(first + shift - left, 0) // BLOCK_K * BLOCK_K
        full_low = tl.cdiv(tl.maximum(last + shift - left, 0), BLOCK_K) * BLOCK_K
    if right is not None:
        high = tl.minimum(end, tl.maximum(last + shift + right + 1, 0))
        full_high = tl.minimum(end, tl.maximum(first + shift + right + 1, 0))
    full_high = full_high // BLOCK_K * BLOCK_K
    if left is not None or right is not None:
        none = full_high <= full_low
        full_low, full_high = tl.where(none, low, full_low), tl.where(none, low, full_high)
    return low, full_low, full_high, high


@triton.jit
def edge_tiles(low, full_low, full_high, high, BLOCK: tl.constexpr):
    """How many tiles there are before and after the inner range, and how many before it."""
    before = (full_low - low) // BLOCK
    return before + tl.cdiv(tl.maximum(high - full_high, 0), BLOCK), before


@triton.jit
def edge_start(n, before, low, full_high, BLOCK: tl.constexpr):
    """Where edge tile `n` begins."""
    return tl.where(n < before, low + n * BLOCK, full_high + (n - before) * BLOCK)


@triton.jit
def attend_tile(
    start, state, query, k, v, bias, mask, seed, batch, head, more, i, is_query, k_head, v_head,
    batch_head, queries, keys, end, left, right, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, PRECISION: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """One step of the online softmax: `state` is the maximum, the sum and the weighted values."""
    top, total, attended = state
    j = start + tl.arange(0, BLOCK_K)
    j_at = j.to(INDEX)
    is_key = j < end if EDGE else None
    key = load_rows(origin(k, batch, k_head), j_at * k.token, is_key, DIM, BLOCK_D)
    s = dot(query, tl.trans(key), None, PRECISION) * (scale * LOG2E)
    column = more if more is None else more[:, None]
    s = forbid(
        s, batch, head, column, i[:, None], j[None, :], is_query[:, None], queries, keys, end, bias,
        mask, left, right, EDGE, INDEX,
    )  # fmt: skip
    p, shrink, top, total = online_softmax(s, top, total)
    if seed is not None:
        p *= dropout_factor(seed, dropout, batch_head, i[:, None], start, BLOCK_K)
    value = load_rows(origin(v, batch, v_head), j_at * v.token, is_key, V_DIM, BLOCK_D)
    attended = attended * shrink[:, None]
    attended = dot(p.to(value.dtype), value, attended, PRECISION)
    return top, total, attended


@triton.jit
def attention_forward(
    q, k, v, bias, mask, lengths, gate, seed, k_map, v_map, out, heads, lse,
    units, queries, keys, left, right, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, GROUP: tl.constexpr, SPLIT: tl.constexpr,
    PLAIN: tl.constexpr, PRECISION: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes `out`, the logarithm (base 2) of each row's normaliser, and the ungated heads.

    A program has BLOCK_Q rows: queries of one head, or of all heads of a group, whose keys are then
    read once. Tiles of keys at an edge (of the keys, the lengths or the window) are masked in a
    loop of their own; with a bias, a mask or dropout, which cost far more, in one loop with the
    others, since twice the code would take more registers than there are. With SPLIT every program
    of the second axis takes a part of the keys, and writes what `attention_combine` puts together.

    FLOPs 2 Tq Tk (D + Dv) per head; bytes q, k, v, out once, as k and v stay in L2 between the
    tiles of a head: T / 2 FLOPs a byte at 16 bits, so bound by computation from about 600 keys on
    (H100), by memory below. The products take turns with exp2 and the masks: a third of the
    tensor cores' peak is expected at D = 64 on an H100. A full bias plane leaves 4 D FLOPs for its
    5 bytes a score. docs/kernels.md has the estimate of every configuration.
    Source: Dao, 2023, "FlashAttention-2", arXiv 2307.08691, algorithm 1; Dao et al., 2023,
    "Flash-Decoding for long-context inference", for SPLIT.
    """
    tiles = tl.cdiv(queries * GROUP, BLOCK_Q)
    unit = tl.program_id(0) // tiles
    first = (tiles - 1 - tl.program_id(0) % tiles) * BLOCK_Q  # under causality the longest first
    batch, unit = unit // units, unit % units
    head = unit * GROUP
    k_head = unit if k_map is None else tl.load(k_map + unit)
    v_head = unit if v_map is None else tl.load(v_map + unit)
    end = keys if lengths is None else tl.minimum(tl.load(lengths + batch), keys).to(tl.int32)

    r = first + tl.arange(0, BLOCK_Q)
    i = r // GROUP
    more = r % GROUP if GROUP > 1 else None  # its head within the group
    is_query = i < queries
    batch_head = batch * (units * GROUP) + head
    row = batch_head.to(tl.int64) * queries + i
    if GROUP > 1:
        row += more * queries
        batch_head += more[:, None]
    query = load_rows(origin(q, batch, head), row_offset(q, i, more, INDEX), is_query, DIM, BLOCK_D)
    state = (
        tl.full([BLOCK_Q], float("-inf"), tl.float32), tl.zeros([BLOCK_Q], tl.float32),
        tl.zeros([BLOCK_Q, BLOCK_D], tl.float32),
    )  # fmt: skip
    low, full_low, full_high, high = key_tiles(
        first // GROUP, (first + BLOCK_Q - 1) // GROUP, queries, keys, end, left, right, BLOCK_K
    )
    if SPLIT:
        share = tl.cdiv(tl.cdiv(high - low, BLOCK_K), tl.num_programs(1)) * BLOCK_K
        low += tl.program_id(1) * share
        high = tl.minimum(high, low + share)
        full_low = tl.maximum(full_low, low)
        full_high = tl.minimum(full_high, high // BLOCK_K * BLOCK_K)
        none = full_high <= full_low
        full_low, full_high = tl.where(none, low, full_low), tl.where(none, low, full_high)
    if PLAIN:
        for start in range(full_low, full_high, BLOCK_K):
            state = attend_tile(
                start, state, query, k, v, bias, mask, seed, batch, head, more, i, is_query, k_head,
                v_head, batch_head, queries, keys, end, left, right, scale, dropout,
                DIM, V_DIM, PRECISION, INDEX, BLOCK_K, BLOCK_D, False,
            )  # fmt: skip
    else:
        full_low, full_high = low, low
    count, before = edge_tiles(low, full_low, full_high, high, BLOCK_K)
    for n in range(count):
        state = attend_tile(
            edge_start(n, before, low, full_high, BLOCK_K), state, query, k, v, bias, mask, seed,
            batch, head, more, i, is_query, k_head, v_head, batch_head, queries, keys, end, left,
            right, scale, dropout,
            DIM, V_DIM, PRECISION, INDEX, BLOCK_K, BLOCK_D, True,
        )  # fmt: skip
    top, total, attended = state

    attended /= normalizer(total)[:, None]
    if SPLIT:
        batches = tl.num_programs(0) // (tiles * units)
        row += tl.program_id(1).to(tl.int64) * (batches * units * GROUP) * queries
        batch += tl.program_id(1) * batches
    tl.store(lse + row, log_normalizer(top, total), mask=is_query)
    start = displacement(out, batch, head)
    offset = row_offset(out, i, more, INDEX)
    if gate.data is not None and not SPLIT:
        store_rows(heads + start, offset, attended, is_query, V_DIM, BLOCK_D)
        column = more if more is None else more[:, None]
        factor = load_plane(
            gate, batch, head, column, i[:, None], 0, is_query[:, None], False, INDEX
        )
        attended *= factor.to(tl.float32)
    store_rows(out.data + start, offset, attended, is_query, V_DIM, BLOCK_D)


@triton.jit
def attention_combine(
    parts, part_lse, gate, out, heads, lse, splits, rows, head_count, queries,
    V_DIM: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Puts together what parts of the keys gave: each counts as much as its normaliser.

    Bytes 4 Dv for every row and part: some percent of the keys and values that were read.
    """
    r = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    exists = r < rows
    r_at = r.to(tl.int64)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    attended = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    for _ in range(splits):
        one = tl.load(part_lse + r_at, mask=exists, other=float("inf"))
        one = tl.where(one == float("inf"), float("-inf"), one)
        weight, shrink, top, total = online_softmax(one[:, None], top, total)
        part = load_rows(parts, r_at * V_DIM, exists, V_DIM, BLOCK_D)
        attended = attended * shrink[:, None] + part * weight
        parts += rows.to(tl.int64) * V_DIM
        part_lse += rows
    attended /= normalizer(total)[:, None]
    tl.store(lse + r_at, log_normalizer(top, total), mask=exists)
    batch_head, i = r // queries, r % queries
    batch, head = batch_head // head_count, batch_head % head_count
    offset = batch.to(tl.int64) * out.batch + head.to(tl.int64) * out.head
    offset += i.to(tl.int64) * out.token
    if gate.data is not None:
        store_rows(heads, offset, attended, exists, V_DIM, BLOCK_D)
        at = plane_pointers(gate, batch, head, None, i, 0, tl.int64)
        attended *= tl.load(at, mask=exists, other=0.0).to(tl.float32)[:, None]
    store_rows(out.data, offset, attended, exists, V_DIM, BLOCK_D)
