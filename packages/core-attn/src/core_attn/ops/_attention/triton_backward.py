"""The backward kernels of `attention`: by tiles of queries, then by tiles of keys."""
# What triton compiles is not typed as Python.
# pyright: reportArgumentType=false, reportOptionalSubscript=false

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
    load_numbers,
    load_plane,
    load_rows,
    origin,
    plane_like,
    plane_pointers,
    store_rows,
)
from .._triton_host import rows_like
from .triton_backward_bias import attention_backward_bias
from .triton_call import Inputs
from .triton_forward import (
    arguments,
    edge_start,
    edge_tiles,
    forbid,
    key_tiles,
    row_offset,
)

Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]
PLANE, COLUMNS, ROWS = (tl.constexpr(form) for form in ("plane", "columns", "rows"))


def plan(
    dout: Tensor,
    dlse: Tensor | None,
    heads: Tensor,
    lse: Tensor,
    x: Inputs,
    with_bias: bool,
    arch: str,
) -> tuple[list[Launch], Gradients]:
    """The launches of the backward pass, in order, and what they will fill.

    That is dq, dk and dv (per query head in float32 where a map is not a grouping, to be summed
    over it), dbias (float32, to be summed to the shape of the bias; None unless `with_bias`) and
    dgate (float32, per query).
    """
    batch, heads_q, queries, keys = x.plane
    dq = rows_like(x.q, heads_q, x.q.shape[3])
    dk, dv = (
        torch.empty_like(y, memory_format=torch.contiguous_format) if x.group > 1
        else rows_like(y, heads_q, y.shape[3], y.dtype if head_map is None else torch.float32)
        for y, head_map in ((x.k, x.k_map), (x.v, x.v_map))
    )  # fmt: skip
    dgate = lse.new_empty(lse.shape)
    shared = {"dout": Rows.of(dout), "lse": lse, "dgate": dgate}

    tiles = x.tiles(arch, "queries")
    form = x.bias_form if with_bias else None
    packed = form in (None, "plane", "shared")
    dbias = plane = None
    if x.bias is not None and form is not None:
        rows, columns = {
            "columns": (triton.cdiv(queries, tiles.queries), keys), "rows": (queries, 1),
        }.get(form, (queries, keys))  # fmt: skip
        shape = x.bias.shape if form == "shared" else (batch, heads_q, rows, columns)
        dbias = plane_like(lse, shape, torch.float32)
        if form != "shared":
            dbias.zero_()  # tiles that no query sees are not visited
        plane = Plane.of(dbias, (batch, heads_q, rows, keys))
    group = x.group if packed else 1
    args = arguments(x, arch, tiles, packed) | shared
    by_queries = args | {
        "dlse": dlse if dlse is None else dlse.contiguous(), "heads": Rows.of(heads),
        "dq": Rows.of(dq), "dbias": None if form == "shared" else plane,
        "FORM": form or "",
    }  # fmt: skip
    units = batch * (heads_q // group)
    programs = triton.cdiv(queries * group, tiles.queries) * units
    launches = [Launch(attention_backward_queries, programs, by_queries)]
    if form == "shared" and plane is not None and dbias is not None:
        tiles = x.tiles(arch, "bias")
        cells = dbias.shape[0] * dbias.shape[1]
        cells *= triton.cdiv(queries, tiles.queries) * triton.cdiv(keys, tiles.keys)
        of_bias = (
            args | tiles.options(x.width) | {"dbias": plane, "batches": batch, "heads": heads_q}
        )
        del of_bias["units"], of_bias["PLAIN"]
        launches.append(Launch(attention_backward_bias, cells, of_bias))
    tiles = x.tiles(arch, "keys")
    by_keys = arguments(x, arch, tiles) | shared | {"dk": Rows.of(dk), "dv": Rows.of(dv)}
    programs = triton.cdiv(keys, tiles.keys) * batch * (heads_q // x.group)
    launches.append(Launch(attention_backward_keys, programs, by_keys))
    return launches, (dq, dk, dv, dbias, dgate)


@triton.jit
def gradient_tile(
    start, state, query, d_out, mean, norm, factor, k, v, bias, mask, seed, dbias, batch, head,
    more, i, is_query, k_head, v_head, batch_head, tile, queries, keys, end, left, right, scale,
    dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, FORM: tl.constexpr,
    PRECISION: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Adds what a tile of keys gives to the gradient of the queries, and of the bias."""
    d_query, row_sums = state
    j = start + tl.arange(0, BLOCK_K)
    j_at = j.to(INDEX)
    is_key = j < end if EDGE else None
    column = more if more is None else more[:, None]
    key = load_rows(origin(k, batch, k_head), j_at * k.token, is_key, DIM, BLOCK_D)
    s = dot(query, tl.trans(key), None, PRECISION) * (scale * LOG2E)
    s = forbid(
        s, batch, head, column, i[:, None], j[None, :], is_query[:, None], queries, keys, end, bias,
        mask, left, right, EDGE, INDEX,
    )  # fmt: skip
    p = tl.exp2(s - norm[:, None])
    if factor is not None:
        p *= factor
    value = load_rows(origin(v, batch, v_head), j_at * v.token, is_key, V_DIM, BLOCK_D)
    dp = dot(d_out, tl.trans(value), None, PRECISION)
    if seed is not None:
        dp *= dropout_factor(seed, dropout, batch_head, i[:, None], start, BLOCK_K)
    ds = p * (dp - mean[:, None])
    if FORM == PLANE:
        at = plane_pointers(dbias, batch, head, column, i[:, None], j[None, :], INDEX)
        inside = is_query[:, None]
        if EDGE:
            inside = inside & (j < dbias.width)[None, :]
        tl.store(at, ds, mask=inside)
    elif FORM == COLUMNS:
        at = plane_pointers(dbias, batch, head, None, tile, j, INDEX)
        tl.store(at, tl.sum(ds, 0), mask=j < dbias.width)
    elif FORM == ROWS:
        row_sums += tl.sum(ds, 1)
    d_query = dot(ds.to(key.dtype), key, d_query, PRECISION)
    return d_query, row_sums


@triton.jit
def attention_backward_queries(
    q, k, v, bias, mask, lengths, gate, seed, k_map, v_map, dout, dlse, heads, lse, dq, dbias,
    dgate, units, queries, keys, left, right, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, GROUP: tl.constexpr, FORM: tl.constexpr,
    PLAIN: tl.constexpr, PRECISION: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes dq, `dgate` = sum over dim of dout * heads, and what it can of dbias.

    With P the weights and g the gate, dS = g P (dout v^T - dgate), whether or not there is a gate
    (1 without), so `dgate` also serves the kernel of the keys, which runs next. dS is stored as it
    is for a bias of every batch entry and head ("plane"), as sums over the tile of queries where
    all share it ("columns"), or over the keys ("rows"); a bias that batch entries or heads share
    has a kernel of its own. Nothing is added atomically: the sums have one order.

    FLOPs 2 Tq Tk (2 D + Dv) per head; bytes q, k, v, dout, out, dq once, plus bias and mask and
    4 per entry of dbias. Bound by computation like the forward pass; by dbias where there is one.
    Source: Dao, 2023, "FlashAttention-2", arXiv 2307.08691, algorithm 2.
    """
    tiles = tl.cdiv(queries * GROUP, BLOCK_Q)
    unit = tl.program_id(0) // tiles
    tile = tiles - 1 - tl.program_id(0) % tiles
    first = tile * BLOCK_Q
    batch, unit = unit // units, unit % units
    head = unit * GROUP
    k_head = unit if k_map is None else tl.load(k_map + unit)
    v_head = unit if v_map is None else tl.load(v_map + unit)
    end = keys if lengths is None else tl.minimum(tl.load(lengths + batch), keys).to(tl.int32)

    r = first + tl.arange(0, BLOCK_Q)
    i = r // GROUP
    more = r % GROUP if GROUP > 1 else None
    is_query = i < queries
    batch_head = batch * (units * GROUP) + head
    row = batch_head.to(tl.int64) * queries + i
    if GROUP > 1:
        row += more * queries
        batch_head += more[:, None]
    query = load_rows(origin(q, batch, head), row_offset(q, i, more, INDEX), is_query, DIM, BLOCK_D)
    d_out = load_rows(
        origin(dout, batch, head), row_offset(dout, i, more, INDEX), is_query, V_DIM, BLOCK_D
    )
    out = load_rows(
        origin(heads, batch, head), row_offset(heads, i, more, INDEX), is_query, V_DIM, BLOCK_D
    )
    mean = tl.sum(d_out.to(tl.float32) * out.to(tl.float32), 1)
    if dlse is not None:  # of the logarithm of the normaliser, base 2; then there is no gate
        mean -= tl.load(dlse + row, mask=is_query, other=0.0) * LOG2E
    tl.store(dgate + row, mean, mask=is_query)
    norm = tl.load(lse + row, mask=is_query, other=float("inf"))
    factor = None
    if gate.data is not None:
        column = more if more is None else more[:, None]
        factor = load_plane(
            gate, batch, head, column, i[:, None], 0, is_query[:, None], False, INDEX
        ).to(tl.float32)
    state = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32), tl.zeros([BLOCK_Q], tl.float32)
    low, full_low, full_high, high = key_tiles(
        first // GROUP, (first + BLOCK_Q - 1) // GROUP, queries, keys, end, left, right, BLOCK_K
    )
    if PLAIN:
        for start in range(full_low, full_high, BLOCK_K):
            state = gradient_tile(
                start, state, query, d_out, mean, norm, factor, k, v, bias, mask, seed, dbias,
                batch, head, more, i, is_query, k_head, v_head, batch_head, tile, queries, keys,
                end, left, right, scale, dropout,
                DIM, V_DIM, FORM, PRECISION, INDEX, BLOCK_K, BLOCK_D, False,
            )  # fmt: skip
    else:
        full_low, full_high = low, low
    count, before = edge_tiles(low, full_low, full_high, high, BLOCK_K)
    for n in range(count):
        state = gradient_tile(
            edge_start(n, before, low, full_high, BLOCK_K), state, query, d_out, mean, norm, factor,
            k, v, bias, mask, seed, dbias, batch, head, more, i, is_query, k_head, v_head,
            batch_head, tile, queries, keys, end, left, right, scale, dropout,
            DIM, V_DIM, FORM, PRECISION, INDEX, BLOCK_K, BLOCK_D, True,
        )  # fmt: skip
    d_query, row_sums = state
    store_rows(
        origin(dq, batch, head), row_offset(dq, i, more, INDEX), d_query * scale, is_query, DIM,
        BLOCK_D,
    )  # fmt: skip
    if FORM == ROWS:
        tl.store(plane_pointers(dbias, batch, head, None, i, 0, INDEX), row_sums, mask=is_query)


@triton.jit
def query_tiles(first, queries, keys, end, left, right, BLOCK_Q: tl.constexpr,
                BLOCK_K: tl.constexpr, GROUP: tl.constexpr):  # fmt: skip
    """The rows that see some key of first .. first + BLOCK_K, and those that see all of them.

    The ranges begin at multiples of BLOCK_Q, and the inner one ends at one.
    """
    shift, last = keys - queries, first + BLOCK_K - 1
    low, full_low = 0, 0
    high, full_high = tl.where(first < end, queries, 0), tl.where(last < end, queries, 0)
    if right is not None:
        low = tl.maximum(first - right - shift, 0) * GROUP // BLOCK_Q * BLOCK_Q
        full_low = tl.cdiv(tl.maximum(last - right - shift, 0) * GROUP, BLOCK_Q) * BLOCK_Q
    if left is not None:
        high = tl.minimum(high, tl.maximum(last + left - shift + 1, 0))
        full_high = tl.minimum(full_high, tl.maximum(first + left - shift + 1, 0))
    high = high * GROUP
    full_high = full_high * GROUP // BLOCK_Q * BLOCK_Q
    none = full_high <= full_low
    return low, tl.where(none, low, full_low), tl.where(none, low, full_high), high


@triton.jit
def key_gradient_tile(
    start, state, key, value, q, bias, mask, gate, seed, dout, lse, dgate, batch, head, first,
    batch_head, units, queries, keys, end, left, right, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Adds what a tile of rows gives to the gradients of keys and values."""
    d_key, d_value = state
    r = start + tl.arange(0, BLOCK_Q)
    i = r // GROUP
    more = r % GROUP if GROUP > 1 else None
    j = first + tl.arange(0, BLOCK_K)
    if EDGE:
        is_query = i < queries
        exists = is_query[None, :]
    else:
        is_query = None
        exists = None
    row = batch_head.to(tl.int64) * queries + i
    column = None
    if GROUP > 1:
        row += more * queries
        column = more[None, :]
        batch_head += more[:, None]
    if seed is not None:  # first, while registers are free
        kept = tl.trans(dropout_factor(seed, dropout, batch_head, i[:, None], first, BLOCK_K))
    query = load_rows(origin(q, batch, head), row_offset(q, i, more, INDEX), is_query, DIM, BLOCK_D)
    s = dot(key, tl.trans(query), None, PRECISION) * (scale * LOG2E)
    s = forbid(
        s, batch, head, column, i[None, :], j[:, None], exists, queries, keys, end, bias, mask,
        left, right, EDGE, INDEX,
    )  # fmt: skip
    p = tl.exp2(s - load_numbers(lse + row, is_query, float("inf"))[None, :])
    if gate.data is not None:
        factor = load_plane(gate, batch, head, column, i[None, :], 0, exists, False, INDEX)
        p *= factor.to(tl.float32)
    d_out = load_rows(
        origin(dout, batch, head), row_offset(dout, i, more, INDEX), is_query, V_DIM, BLOCK_D
    )
    dp = dot(value, tl.trans(d_out), None, PRECISION)
    dropped = p
    if seed is not None:
        dropped *= kept
        dp *= kept
    d_value = dot(dropped.to(d_out.dtype), d_out, d_value, PRECISION)
    ds = p * (dp - load_numbers(dgate + row, is_query, 0.0)[None, :])
    d_key = dot(ds.to(query.dtype), query, d_key, PRECISION)
    return d_key, d_value


@triton.jit
def attention_backward_keys(
    q, k, v, bias, mask, lengths, gate, seed, k_map, v_map, dout, lse, dk, dv, dgate,
    units, queries, keys, left, right, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, GROUP: tl.constexpr, PLAIN: tl.constexpr,
    PRECISION: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes dk and dv of every head, summed over its group, from scores keys by queries.

    FLOPs 2 Tq Tk (2 D + 2 Dv) per query head; bytes q, k, v, dout, dk, dv once, plus bias and mask.
    Bound by computation: four products a score hide more of exp2 than the forward's two.
    Source: Dao, 2023, "FlashAttention-2", arXiv 2307.08691, algorithm 2.
    """
    tiles = tl.cdiv(keys, BLOCK_K)
    unit = tl.program_id(0) // tiles
    first = tl.program_id(0) % tiles * BLOCK_K
    batch, unit = unit // units, unit % units
    head = unit * GROUP
    k_head = unit if k_map is None else tl.load(k_map + unit)
    v_head = unit if v_map is None else tl.load(v_map + unit)
    end = keys if lengths is None else tl.minimum(tl.load(lengths + batch), keys).to(tl.int32)
    batch_head = batch * (units * GROUP) + head

    j = first + tl.arange(0, BLOCK_K)
    j_at, is_key = j.to(INDEX), j < end
    key = load_rows(origin(k, batch, k_head), j_at * k.token, is_key, DIM, BLOCK_D)
    value = load_rows(origin(v, batch, v_head), j_at * v.token, is_key, V_DIM, BLOCK_D)
    state = tl.zeros([BLOCK_K, BLOCK_D], tl.float32), tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    low, full_low, full_high, high = query_tiles(
        first, queries, keys, end, left, right, BLOCK_Q, BLOCK_K, GROUP
    )
    if PLAIN:
        for start in range(full_low, full_high, BLOCK_Q):
            state = key_gradient_tile(
                start, state, key, value, q, bias, mask, gate, seed, dout, lse, dgate, batch, head,
                first, batch_head, units, queries, keys, end, left, right, scale, dropout,
                DIM, V_DIM, GROUP, PRECISION, INDEX, BLOCK_Q, BLOCK_K, BLOCK_D, False,
            )  # fmt: skip
    else:
        full_low, full_high = low, low
    count, before = edge_tiles(low, full_low, full_high, high, BLOCK_Q)
    for n in range(count):
        state = key_gradient_tile(
            edge_start(n, before, low, full_high, BLOCK_Q), state, key, value, q, bias, mask, gate,
            seed, dout, lse, dgate, batch, head, first, batch_head, units, queries, keys, end,
            left, right, scale, dropout,
            DIM, V_DIM, GROUP, PRECISION, INDEX, BLOCK_Q, BLOCK_K, BLOCK_D, True,
        )  # fmt: skip
    d_key, d_value = state
    exists = j < keys
    store_rows(origin(dk, batch, unit), j_at * dk.token, d_key * scale, exists, DIM, BLOCK_D)
    store_rows(origin(dv, batch, unit), j_at * dv.token, d_value, exists, V_DIM, BLOCK_D)
