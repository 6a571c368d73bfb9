"""The backward kernels of `attention`: by tiles of queries, then by tiles of keys."""
# What triton compiles is not typed as Python.
# pyright: reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton_common import (
    LOG2E,
    Launch,
    Plane,
    Rows,
    dot,
    dropout_factor,
    load_plane,
    load_rows,
    origin,
    plane_pointers,
    store_rows,
)
from .._triton_host import rows_like
from .triton_forward import Inputs, forbid, key_range

Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]


def plan(
    dout: Tensor, heads: Tensor, lse: Tensor, x: Inputs, with_bias: bool, arch: str
) -> tuple[tuple[Launch, Launch], Gradients]:
    """The two launches of the backward pass, in order, and what they will fill.

    That is dq, dk and dv per query head (float32 under a head map, to be summed over it), dbias
    (float32, or None unless `with_bias`) and dgate (float32, per query).
    """
    heads_q = x.q.shape[1]
    dq = rows_like(x.q, heads_q, x.q.shape[3])
    dk, dv = (
        rows_like(y, heads_q, y.shape[3], y.dtype if head_map is None else torch.float32)
        for y, head_map in ((x.k, x.k_map), (x.v, x.v_map))
    )
    dgate = lse.new_empty(lse.shape)
    dbias = None
    if with_bias and x.bias is not None:
        dbias = torch.zeros_like(x.bias, dtype=torch.float32, memory_format=torch.contiguous_format)
    shared = {"dout": Rows.of(dout), "lse": lse, "dgate": dgate}
    by_queries = x.launch(
        attention_backward_queries, "queries", arch, "queries",
        heads=Rows.of(heads), dq=Rows.of(dq), dbias=Plane.of(dbias, x.plane), **shared,
    )  # fmt: skip
    by_keys = x.launch(
        attention_backward_keys, "keys", arch, "keys", dk=Rows.of(dk), dv=Rows.of(dv), **shared
    )
    return (by_queries, by_keys), (dq, dk, dv, dbias, dgate)


@triton.jit
def add_to_plane(x, value, batch, head, i, j, queries, keys, INDEX: tl.constexpr):
    """Stores (i, j) into the gradient of a plane; where the plane broadcasts, adds atomically."""
    at = plane_pointers(x, batch, head, i, j, INDEX)
    if x.query is None and x.key is None:
        tl.atomic_add(at, tl.sum(value), sem="relaxed")
    elif x.query is None:
        tl.atomic_add(at, tl.sum(value, 0)[None, :], mask=j < keys, sem="relaxed")
    elif x.key is None:
        tl.atomic_add(at, tl.sum(value, 1)[:, None], mask=i < queries, sem="relaxed")
    elif x.batch is None or x.head is None:
        tl.atomic_add(at, value, mask=(i < queries) & (j < keys), sem="relaxed")
    else:
        tl.store(at, value, mask=(i < queries) & (j < keys))


@triton.jit
def attention_backward_queries(
    q, k, v, bias, mask, lengths, gate, seed, k_map, v_map, dout, heads, lse, dq, dbias, dgate,
    head_count, queries, keys, window, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, PRECISION: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes dq and `dgate` = sum over dim of dout * heads; adds to dbias.

    With P the weights and g the gate, dS = g P (dout v^T - dgate), whether or not there is a gate
    (1 without), so `dgate` also serves the kernel of the keys, which runs next.

    FLOPs 2 Tq Tk (2 D + Dv) per head; bytes q, k, v, dout, out, dq once, plus bias and mask and
    8 per entry of dbias. Bound by computation like the forward pass; by dbias where there is one.
    Source: Dao, 2023, "FlashAttention-2", arXiv 2307.08691, algorithm 2.
    """
    tiles = tl.cdiv(queries, BLOCK_Q)
    batch_head = tl.program_id(0) // tiles
    first = (tiles - 1 - tl.program_id(0) % tiles) * BLOCK_Q
    batch, head = batch_head // head_count, batch_head % head_count
    k_head = head if k_map is None else tl.load(k_map + head)
    v_head = head if v_map is None else tl.load(v_map + head)
    end = keys if lengths is None else tl.minimum(tl.load(lengths + batch), keys).to(tl.int32)

    i = first + tl.arange(0, BLOCK_Q)
    i_at, is_query = i.to(INDEX), i < queries
    row = batch_head.to(tl.int64) * queries + i
    query = load_rows(origin(q, batch, head), i_at * q.token, is_query, DIM, BLOCK_D)
    d_out = load_rows(origin(dout, batch, head), i_at * dout.token, is_query, V_DIM, BLOCK_D)
    out = load_rows(origin(heads, batch, head), i_at * heads.token, is_query, V_DIM, BLOCK_D)
    mean = tl.sum(d_out.to(tl.float32) * out.to(tl.float32), 1)
    tl.store(dgate + row, mean, mask=is_query)
    norm = tl.load(lse + row, mask=is_query, other=float("inf"))
    d_query = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    low, high = key_range(first, keys, queries, end, window, BLOCK_Q, BLOCK_K)
    for start in range(low, high, BLOCK_K):
        j = start + tl.arange(0, BLOCK_K)
        j_at, is_key = j.to(INDEX), j < end
        key = load_rows(origin(k, batch, k_head), j_at * k.token, is_key, DIM, BLOCK_D)
        s = dot(query, tl.trans(key), None, PRECISION) * (scale * LOG2E)
        s = forbid(
            s, batch, head, i[:, None], j[None, :], queries, keys, end, bias, mask, window, INDEX
        )
        p = tl.exp2(s - norm[:, None])
        if gate is not None:
            p *= load_plane(gate, batch, head, i[:, None], 0, queries, 1, INDEX).to(tl.float32)
        value = load_rows(origin(v, batch, v_head), j_at * v.token, is_key, V_DIM, BLOCK_D)
        dp = dot(d_out, tl.trans(value), None, PRECISION)
        if seed is not None:
            dp *= dropout_factor(seed, dropout, batch_head, i[:, None], j[None, :])
        ds = p * (dp - mean[:, None])
        if dbias is not None:
            add_to_plane(dbias, ds, batch, head, i[:, None], j[None, :], queries, keys, INDEX)
        d_query = dot(ds.to(key.dtype), key, d_query, PRECISION)
    start = origin(dq, batch, head)
    store_rows(start, i_at * dq.token, d_query * scale, is_query, DIM, BLOCK_D)


@triton.jit
def query_range(first, keys, queries, end, window, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    """The queries, from a multiple of BLOCK_Q, that see some key of first .. first + BLOCK_K."""
    low, high = 0, tl.where(first < end, queries, 0)
    if window is not None:
        position = first - (keys - queries)
        low = tl.maximum(position - window[1], 0) // BLOCK_Q * BLOCK_Q
        high = tl.minimum(high, position + BLOCK_K + window[0])
    return low, high


@triton.jit
def attention_backward_keys(
    q, k, v, bias, mask, lengths, gate, seed, k_map, v_map, dout, lse, dk, dv, dgate,
    head_count, queries, keys, window, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, PRECISION: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes dk and dv of every query head, from scores laid out keys by queries.

    FLOPs 2 Tq Tk (2 D + 2 Dv) per head; bytes q, k, v, dout, dk, dv once, plus bias and mask.
    Bound by computation: four products a score hide more of exp2 than the forward's two.
    Source: Dao, 2023, "FlashAttention-2", arXiv 2307.08691, algorithm 2.
    """
    tiles = tl.cdiv(keys, BLOCK_K)
    batch_head = tl.program_id(0) // tiles
    first = tl.program_id(0) % tiles * BLOCK_K
    batch, head = batch_head // head_count, batch_head % head_count
    k_head = head if k_map is None else tl.load(k_map + head)
    v_head = head if v_map is None else tl.load(v_map + head)
    end = keys if lengths is None else tl.minimum(tl.load(lengths + batch), keys).to(tl.int32)

    j = first + tl.arange(0, BLOCK_K)
    j_at, is_key = j.to(INDEX), j < end
    key = load_rows(origin(k, batch, k_head), j_at * k.token, is_key, DIM, BLOCK_D)
    value = load_rows(origin(v, batch, v_head), j_at * v.token, is_key, V_DIM, BLOCK_D)
    d_key = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    d_value = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    low, high = query_range(first, keys, queries, end, window, BLOCK_Q, BLOCK_K)
    for start in range(low, high, BLOCK_Q):
        i = start + tl.arange(0, BLOCK_Q)
        i_at, is_query = i.to(INDEX), i < queries
        row = batch_head.to(tl.int64) * queries + i
        query = load_rows(origin(q, batch, head), i_at * q.token, is_query, DIM, BLOCK_D)
        s = dot(key, tl.trans(query), None, PRECISION) * (scale * LOG2E)
        s = forbid(
            s, batch, head, i[None, :], j[:, None], queries, keys, end, bias, mask, window, INDEX
        )
        p = tl.exp2(s - tl.load(lse + row, mask=is_query, other=float("inf"))[None, :])
        if gate is not None:
            p *= load_plane(gate, batch, head, i[None, :], 0, queries, 1, INDEX).to(tl.float32)
        d_out = load_rows(origin(dout, batch, head), i_at * dout.token, is_query, V_DIM, BLOCK_D)
        dp = dot(value, tl.trans(d_out), None, PRECISION)
        dropped = p
        if seed is not None:
            factor = dropout_factor(seed, dropout, batch_head, i[None, :], j[:, None])
            dropped *= factor
            dp *= factor
        d_value = dot(dropped.to(d_out.dtype), d_out, d_value, PRECISION)
        ds = p * (dp - tl.load(dgate + row, mask=is_query, other=0.0)[None, :])
        d_key = dot(ds.to(query.dtype), query, d_key, PRECISION)
    exists = j < keys
    store_rows(origin(dk, batch, head), j_at * dk.token, d_key * scale, exists, DIM, BLOCK_D)
    store_rows(origin(dv, batch, head), j_at * dv.token, d_value, exists, V_DIM, BLOCK_D)
