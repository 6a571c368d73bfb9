"""The backward kernel of `attention` for a bias that batch entries or heads share."""
# What triton compiles is not typed as Python.
# pyright: reportArgumentType=false, reportOptionalSubscript=false

import triton
import triton.language as tl

from .._triton_common import (
    LOG2E,
    dot,
    dropout_factor,
    load_plane,
    load_rows,
    origin,
    plane_pointers,
)
from .triton_forward import forbid, row_offset


@triton.jit
def attention_backward_bias(
    q, k, v, bias, mask, lengths, gate, seed, k_map, v_map, dout, lse, dgate, dbias,
    batches, heads, queries, keys, left, right, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of a bias plane that batch entries or heads share: their dS, in order.

    A program has one tile of the plane and goes through all who share it. FLOPs 2 Tq Tk (D + Dv)
    per head more than the other kernels, for none of the 8 bytes a score that atomic additions
    move; bytes q, k, v, dout once per row and column of tiles, from L2, and dbias once.
    Source: Dao, 2023, "FlashAttention-2", arXiv 2307.08691, algorithm 2, summed over the batch.
    """
    q_tiles, k_tiles = tl.cdiv(queries, BLOCK_Q), tl.cdiv(keys, BLOCK_K)
    cell = tl.program_id(0)
    first_key, cell = cell % k_tiles * BLOCK_K, cell // k_tiles
    first, cell = cell % q_tiles * BLOCK_Q, cell // q_tiles
    batch0, head0, count, many = 0, 0, 1, 1
    if dbias.head is None:
        many = heads
    else:
        head0, cell = cell % heads, cell // heads
    if dbias.batch is None:
        count = batches
    else:
        batch0 = cell
    i, j = first + tl.arange(0, BLOCK_Q), first_key + tl.arange(0, BLOCK_K)
    is_query = i < queries
    shift = keys - queries
    seen = first >= 0
    if left is not None:
        seen &= first_key + BLOCK_K - 1 - first - shift >= -left
    if right is not None:
        seen &= first_key - (first + BLOCK_Q - 1) - shift <= right
    total = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
    for n in range(tl.where(seen, count * many, 0)):
        batch, head = batch0 + n // many, head0 + n % many
        k_head = head // GROUP if k_map is None else tl.load(k_map + head)
        v_head = head // GROUP if v_map is None else tl.load(v_map + head)
        end = keys if lengths is None else tl.minimum(tl.load(lengths + batch), keys).to(tl.int32)
        is_key = j < end
        batch_head = batch * heads + head
        row = tl.cast(batch_head, tl.int64) * queries + i
        query = load_rows(
            origin(q, batch, head), row_offset(q, i, None, INDEX), is_query, DIM, BLOCK_D
        )
        key = load_rows(
            origin(k, batch, k_head), row_offset(k, j, None, INDEX), is_key, DIM, BLOCK_D
        )
        s = dot(query, tl.trans(key), None, PRECISION) * (scale * LOG2E)
        s = forbid(
            s, batch, head, None, i[:, None], j[None, :], is_query[:, None], queries, keys, end,
            bias, mask, left, right, True, INDEX,
        )  # fmt: skip
        p = tl.exp2(s - tl.load(lse + row, mask=is_query, other=float("inf"))[:, None])
        if gate.data is not None:
            factor = load_plane(
                gate, batch, head, None, i[:, None], 0, is_query[:, None], False, INDEX
            )
            p *= factor.to(tl.float32)
        d_out = load_rows(
            origin(dout, batch, head), row_offset(dout, i, None, INDEX), is_query, V_DIM, BLOCK_D
        )
        value = load_rows(
            origin(v, batch, v_head), row_offset(v, j, None, INDEX), is_key, V_DIM, BLOCK_D
        )
        dp = dot(d_out, tl.trans(value), None, PRECISION)
        if seed is not None:
            dp *= dropout_factor(seed, dropout, batch_head, i[:, None], first_key, BLOCK_K)
        total += p * (dp - tl.load(dgate + row, mask=is_query, other=0.0)[:, None])
    at = plane_pointers(dbias, batch0, head0, None, i[:, None], j[None, :], INDEX)
    tl.store(at, total, mask=is_query[:, None] & (j < dbias.width)[None, :])
