"""The kernels of attention over lists: a program goes through the keys of queries of one group."""
# What triton compiles is not typed as Python.
# pyright: reportArgumentType=false, reportOptionalSubscript=false
# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl

from .._triton_common import (
    LOG2E,
    displacement,
    dot,
    dropout_factor,
    in_log2,
    load_rows,
    log_normalizer,
    normalizer,
    online_softmax,
    origin,
    row_mask,
    softmax_backward,
    store_rows,
)


@triton.jit
def by_keys(a, b, PRECISION: tl.constexpr):
    """a b^T; of a single row as sums, for which there is no tensor-core instruction."""
    if a.shape[0] == 1:
        return tl.sum(a.to(tl.float32) * b.to(tl.float32), 1)[None, :]
    else:
        return dot(a, tl.trans(b), None, PRECISION)


@triton.jit
def mixed(p, rows, before, PRECISION: tl.constexpr):
    """before + p rows."""
    if p.shape[0] == 1:
        return before + tl.sum(tl.trans(p) * rows.to(tl.float32), 0)[None, :]
    else:
        return dot(p.to(rows.dtype), rows, before, PRECISION)


@triton.jit
def back(p, rows, PRECISION: tl.constexpr):
    """p^T rows."""
    if p.shape[0] == 1:
        return tl.trans(p) * rows.to(tl.float32)
    else:
        return dot(tl.trans(p.to(rows.dtype)), rows, None, PRECISION)


@triton.jit
def group_rows(x, batch, head, group):
    """Pointer to the first row that a group sees in `x`."""
    return displacement(x, batch, head) + x.data + tl.cast(group, tl.int64) * x.group


@triton.jit
def slot_pointers(x, batch, head, group, m, i, n):
    """Pointers (members, slots) to what `x` has for the members m, queries i and slots n."""
    rows = m.to(tl.int64) * 0
    if x.query is not None:
        rows += i.to(tl.int64) * x.query
    else:
        rows += m.to(tl.int64) * x.member + tl.cast(group, tl.int64) * x.group
    return origin(x, batch, head) + rows[:, None] + (n.to(tl.int64) * x.slot)[None, :]


@triton.jit
def coordinate(n, axis: tl.constexpr, W0: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr):
    """The column of `ranked` for slots n of a window in raster order."""
    if axis == 0:
        return n // (W1 * W2)
    elif axis == 1:
        return W0 + n // W2 % W1
    else:
        return W0 + W1 + n % W2


@triton.jit
def of_list(x, batch, head, group, at, exists):
    """Positions at some places of a list, -1 where there are none."""
    start = x.data + displacement(x, batch, head) + tl.cast(group, tl.int64) * x.group
    return tl.load(start + at, mask=exists, other=-1)


@triton.jit
def place(queries, groups, members, heads, BLOCK_Q: tl.constexpr):
    """Where a program works: batch, head, group, its members, their queries, whether they exist."""
    tiles = tl.cdiv(members, BLOCK_Q)
    unit, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    unit, group = unit // groups, unit % groups
    batch, head = unit // heads, unit % heads
    m = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    exists = m < members
    if queries is None:
        i = group + m * 0
    else:
        i = of_list(queries, batch, head, group, m, exists).to(tl.int32)
        exists &= i >= 0
    return batch, head, group, tile, m, tl.where(exists, i, 0), exists


@triton.jit
def listed(start, keys, batch, head, group, picks, BLOCK_K: tl.constexpr):
    """A tile of a list: slots, whether they are in it, positions of keys, whether there are any."""
    n = start + tl.arange(0, BLOCK_K)
    in_list = n < picks
    j = of_list(keys, batch, head, group, n, in_list)
    return n, in_list, j, j >= 0


@triton.jit
def list_scores(
    query, key, ranked, bias, batch, head, group, m, i, exists, n, in_list, j, is_key, self_bias,
    scale,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, AXES: tl.constexpr,
    W0: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores of listed keys in units of log 2, -inf where one may not be seen."""
    s = by_keys(query, key, PRECISION) * (scale * LOG2E)
    inside = exists[:, None] & in_list[None, :]
    for axis in tl.static_range(AXES):
        at = slot_pointers(ranked, batch, head, group, m, i, coordinate(n, axis, W0, W1, W2))
        s += tl.load(at, mask=inside, other=0.0).to(tl.float32) * LOG2E
    if bias.data is not None:
        at = slot_pointers(bias, batch, head, group, m, i, n)
        s += in_log2(tl.load(at, mask=inside, other=0.0))
    if self_bias is not None:
        s += tl.where(j[None, :] == i[:, None], self_bias * LOG2E, 0.0)
    seen = is_key[None, :] if MASKED else in_list[None, :]
    if CAUSAL:
        seen = seen & (j[None, :] <= i[:, None])
    return tl.where(seen, s, float("-inf"))


@triton.jit
def extra_scores(
    query, key, extra_bias, batch, head, group, m, i, exists, n, there, scale,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores of the keys beside the list."""
    s = by_keys(query, key, PRECISION) * (scale * LOG2E)
    if extra_bias.data is not None:
        at = slot_pointers(extra_bias, batch, head, group, m, i, n)
        s += in_log2(tl.load(at, mask=exists[:, None] & there[None, :], other=0.0))
    return tl.where(there[None, :], s, float("-inf"))


@triton.jit
def lists_forward(
    q, k, v, queries, keys, ranked, bias, extra_k, extra_v, extra_bias, added, seed, out, soft, lse,
    heads, groups, members, picks, extra, self_bias, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, MASKED: tl.constexpr, BY_MEMBER: tl.constexpr,
    CAUSAL: tl.constexpr, AXES: tl.constexpr, W0: tl.constexpr, W1: tl.constexpr,
    W2: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes `out`, what it is before `added`, and the logarithms (base 2) of the normalisers.

    Rows of k and v are read where the lists point: nothing is gathered or unfolded in memory, and
    lists that heads share stay in the caches. FLOPs 2 (D + Dv) for each of members * picks scores
    of a group; bytes, if nothing is cached, 2 (D + Dv) picks at 16 bits, hence `members` FLOPs a
    byte: windows of 8 x 8 blocks are bound by the arithmetic on scores, which takes turns with
    their products, single queries by memory, or L2 where lists overlap. docs/kernels.md has
    estimates.
    Source: Dao, 2023, "FlashAttention-2", arXiv 2307.08691, algorithm 1.
    """
    batch, head, group, _, m, i, exists = place(queries, groups, members, heads, BLOCK_Q)
    query = load_rows(origin(q, batch, head), i.to(tl.int64) * q.token, exists, DIM, BLOCK_D)
    batch_head, row = batch * heads + head, group * members + m
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    attended = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    more = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    if extra_k is not None:
        beside = tl.cdiv(picks, 4) * 4
        for start in range(0, extra, BLOCK_K):
            n = start + tl.arange(0, BLOCK_K)
            there, at = n < extra, n.to(tl.int64)
            key = load_rows(
                group_rows(extra_k, batch, head, group), at * extra_k.token, there, DIM, BLOCK_D
            )
            s = extra_scores(
                query, key, extra_bias, batch, head, group, m, i, exists, n, there, scale, PRECISION
            )
            p, shrink, top, total = online_softmax(s, top, total)
            if seed is not None:
                p *= dropout_factor(
                    seed, dropout, batch_head, row[:, None], beside + start, BLOCK_K
                )
            value = load_rows(
                group_rows(extra_v, batch, head, group), at * extra_v.token, there, V_DIM, BLOCK_D
            )
            attended = mixed(p, value, attended * shrink[:, None], PRECISION)
    for start in range(0, picks, BLOCK_K):
        n, in_list, j, is_key = listed(start, keys, batch, head, group, picks, BLOCK_K)
        at = tl.where(is_key, j, 0).to(tl.int64)
        key = load_rows(origin(k, batch, head), at * k.token, is_key, DIM, BLOCK_D)
        s = list_scores(
            query, key, ranked, bias, batch, head, group, m, i, exists, n, in_list, j, is_key,
            self_bias, scale, MASKED, CAUSAL, AXES, W0, W1, W2, PRECISION,
        )  # fmt: skip
        p, shrink, top, total = online_softmax(s, top, total)
        if seed is not None:
            p *= dropout_factor(seed, dropout, batch_head, row[:, None], start, BLOCK_K)
        value = load_rows(origin(v, batch, head), at * v.token, is_key, V_DIM, BLOCK_D)
        attended = mixed(p, value, attended * shrink[:, None], PRECISION)
        if added.data is not None:
            plus = tl.load(
                slot_pointers(added, batch, head, group, m, i, n),
                mask=exists[:, None] & in_list[None, :], other=0.0,
            )  # fmt: skip
            more = mixed(plus.to(tl.float32), value, more, PRECISION)
    attended /= normalizer(total)[:, None]
    norm = log_normalizer(top, total)
    tl.store(lse + batch_head.to(tl.int64) * groups * members + row, norm, mask=m < members)
    start = displacement(out, batch, head)
    offset = (row if BY_MEMBER else i).to(tl.int64) * out.token
    if added.data is not None:
        store_rows(soft + start, offset, attended, exists, V_DIM, BLOCK_D)
        attended += more
    store_rows(out.data + start, offset, attended, exists, V_DIM, BLOCK_D)


@triton.jit
def add_rows(start, offset, rows, exists, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Adds (rows, BLOCK_D) to what is at start + offset, whoever else does."""
    at = start + offset[:, None] + tl.arange(0, BLOCK_D)[None, :]
    tl.atomic_add(at, rows, mask=row_mask(exists, DIM, BLOCK_D), sem="relaxed")


@triton.jit
def lists_backward(
    q, k, v, queries, keys, ranked, bias, extra_k, extra_v, extra_bias, added, seed, dout, soft,
    lse, dq, dk, dv, dranked, dbias, dextra_k, dextra_v, dextra_bias, dadded,
    heads, groups, members, picks, extra, self_bias, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, MASKED: tl.constexpr, BY_MEMBER: tl.constexpr,
    CAUSAL: tl.constexpr, AXES: tl.constexpr, W0: tl.constexpr, W1: tl.constexpr,
    W2: tl.constexpr, PRECISION: tl.constexpr, TILED: tl.constexpr, RANKS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of all but keys and values, to which it adds: many lists name one key.

    One pass, dq staying in registers. FLOPs 2 (3 D + 2 Dv) a score, and as many as `ranked` has
    columns: its gradient is dS times the slots' coordinates in unary. Bytes as in the forward pass,
    and 8 (D + Dv) for every key of every tile of members, added atomically in L2, which is what
    bounds single queries. A bias that the members share is stored as a sum for each tile of them.
    Source: Dao, 2023, "FlashAttention-2", arXiv 2307.08691, algorithm 2.
    """
    batch, head, group, tile, m, i, exists = place(queries, groups, members, heads, BLOCK_Q)
    i_at = i.to(tl.int64)
    query = load_rows(origin(q, batch, head), i_at * q.token, exists, DIM, BLOCK_D)
    batch_head, row = batch * heads + head, group * members + m
    lies = (row if BY_MEMBER else i).to(tl.int64)
    d_out = load_rows(origin(dout, batch, head), lies * dout.token, exists, V_DIM, BLOCK_D)
    heads_out = load_rows(origin(soft, batch, head), lies * soft.token, exists, V_DIM, BLOCK_D)
    mean = tl.sum(d_out.to(tl.float32) * heads_out.to(tl.float32), 1)
    norm = tl.load(
        lse + batch_head.to(tl.int64) * groups * members + row, mask=exists, other=float("inf")
    )
    d_query = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    if extra_k is not None:
        beside = tl.cdiv(picks, 4) * 4
        for start in range(0, extra, BLOCK_K):
            n = start + tl.arange(0, BLOCK_K)
            there, at = n < extra, n.to(tl.int64)
            key = load_rows(
                group_rows(extra_k, batch, head, group), at * extra_k.token, there, DIM, BLOCK_D
            )
            s = extra_scores(
                query, key, extra_bias, batch, head, group, m, i, exists, n, there, scale, PRECISION
            )
            value = load_rows(
                group_rows(extra_v, batch, head, group), at * extra_v.token, there, V_DIM, BLOCK_D
            )
            dp = by_keys(d_out, value, PRECISION)
            factor = None
            if seed is not None:
                factor = dropout_factor(
                    seed, dropout, batch_head, row[:, None], beside + start, BLOCK_K
                )
            dropped, ds = softmax_backward(s, norm, dp, mean, factor)
            add_rows(
                group_rows(dextra_v, batch, head, group), at * dextra_v.token,
                back(dropped, d_out, PRECISION), there, V_DIM, BLOCK_D,
            )  # fmt: skip
            if extra_bias.data is not None:
                at_bias = slot_pointers(dextra_bias, batch, head, group, m, i, n)
                tl.store(at_bias, ds, mask=exists[:, None] & there[None, :])
            ds *= scale
            d_query = mixed(ds, key, d_query, PRECISION)
            add_rows(
                group_rows(dextra_k, batch, head, group), at * dextra_k.token,
                back(ds, query, PRECISION), there, DIM, BLOCK_D,
            )  # fmt: skip
    if ranked.data is not None:
        c = tl.arange(0, BLOCK_C)
        d_ranked = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
    for start in range(0, picks, BLOCK_K):
        n, in_list, j, is_key = listed(start, keys, batch, head, group, picks, BLOCK_K)
        at = tl.where(is_key, j, 0).to(tl.int64)
        key = load_rows(origin(k, batch, head), at * k.token, is_key, DIM, BLOCK_D)
        s = list_scores(
            query, key, ranked, bias, batch, head, group, m, i, exists, n, in_list, j, is_key,
            self_bias, scale, MASKED, CAUSAL, AXES, W0, W1, W2, PRECISION,
        )  # fmt: skip
        value = load_rows(origin(v, batch, head), at * v.token, is_key, V_DIM, BLOCK_D)
        dp = by_keys(d_out, value, PRECISION)
        if added.data is not None:
            inside = exists[:, None] & in_list[None, :]
            tl.store(slot_pointers(dadded, batch, head, group, m, i, n), dp, mask=inside)
        factor = None
        if seed is not None:
            factor = dropout_factor(seed, dropout, batch_head, row[:, None], start, BLOCK_K)
        dropped, ds = softmax_backward(s, norm, dp, mean, factor)
        if added.data is not None:
            at_added = slot_pointers(added, batch, head, group, m, i, n)
            dropped += tl.load(at_added, mask=inside, other=0.0).to(tl.float32)
        add_rows(
            origin(dv, batch, head), at * dv.token, back(dropped, d_out, PRECISION), is_key,
            V_DIM, BLOCK_D,
        )  # fmt: skip
        if dbias.data is not None:
            if TILED:
                at_bias = origin(dbias, batch, head) + tl.cast(group, tl.int64) * dbias.group
                at_bias += tile * dbias.member + n * dbias.slot
                tl.store(at_bias, tl.sum(ds, 0), mask=in_list)
            else:
                at_bias = slot_pointers(dbias, batch, head, group, m, i, n)
                tl.store(at_bias, ds, mask=(m < members)[:, None] & in_list[None, :])
        if ranked.data is not None:
            unary = coordinate(n, 0, W0, W1, W2)[:, None] == c[None, :]
            for axis in tl.static_range(1, AXES):
                unary |= coordinate(n, axis, W0, W1, W2)[:, None] == c[None, :]
            d_ranked = mixed(ds, unary.to(tl.float32).to(query.dtype), d_ranked, PRECISION)
        ds *= scale
        d_query = mixed(ds, key, d_query, PRECISION)
        add_rows(
            origin(dk, batch, head), at * dk.token, back(ds, query, PRECISION), is_key, DIM, BLOCK_D
        )
    if ranked.data is not None:
        at_ranked = slot_pointers(dranked, batch, head, group, m, i, c)
        tl.store(at_ranked, d_ranked, mask=exists[:, None] & (c < RANKS)[None, :])
    if BY_MEMBER:
        add_rows(origin(dq, batch, head), i_at * dq.token, d_query, exists, DIM, BLOCK_D)
    else:
        store_rows(origin(dq, batch, head), i_at * dq.token, d_query, exists, DIM, BLOCK_D)
