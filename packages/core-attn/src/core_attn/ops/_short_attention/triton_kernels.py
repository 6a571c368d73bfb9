"""The kernels of `short_attention`: a program solves several whole problems of one head on chip."""
# What triton compiles is not typed as Python.
# pyright: reportArgumentType=false

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
    dropout_factor_at,
    in_log2,
    load_rows,
    normalizer,
    origin,
    precision,
    store_rows,
    weights_under,
)
from .._triton_host import Tiles, as_bytes, rows_like
from .triton_call import Inputs
from .triton_tiles import entry_for


def launch_of(x: Inputs, kernel: Any, name: str, arch: str, **outputs: Any) -> Launch:
    """`kernel` over all problems and heads."""
    problems, heads, queries, keys = x.plane
    dim, v_dim = x.q.shape[3], x.v.shape[3]
    entry = entry_for(arch, x.q.element_size(), x.longest, max(dim, v_dim))
    if entry is None:
        raise ValueError(f"{arch} has no tiles for {x.longest} tokens of {dim} channels")
    tiles: Tiles = getattr(entry, name)
    together = tiles.keys // x.longest
    gate = Rows(None, 0, 0, None)
    if x.gate is not None:
        per_problem = x.gate.shape[0] == problems and x.gate.shape[2] == 1
        batch_stride, head_stride, token_stride = x.gate.stride()
        gate = Rows(x.gate, batch_stride, head_stride, None if per_problem else token_stride)
    args = {
        "q": Rows.of(x.q),
        "k": Rows.of(x.k),
        "v": Rows.of(x.v),
        "bias": _whole_plane(x.bias, x.plane),
        "mask": _whole_plane(as_bytes(x.mask), x.plane),
        "offsets": x.offsets,
        "gate": gate,
        "seed": x.seed,
        "problems": problems,
        "head_count": heads,
        "queries": queries,
        "keys": keys,
        "together": together,
        "scale": x.scale,
        "dropout": x.dropout,
        "DIM": dim,
        "V_DIM": v_dim,
        "PRECISION": precision(arch),
        **outputs,
        **tiles.options(entry.width),
    }
    return Launch(kernel, triton.cdiv(problems, together) * heads, args)


def _whole_plane(x: Tensor | None, full: tuple[int, ...]) -> Plane:
    if x is None:
        return Plane.of(None, full)
    batch, head, query, key = x.expand(full).stride()
    return Plane(x, batch, head, query, key, full[3])


def plan_forward(x: Inputs, arch: str) -> tuple[Launch, Tensor]:
    """The launch of the forward pass and the output it will fill."""
    out = rows_like(x.q, x.q.shape[1], x.v.shape[3])
    return launch_of(x, short_forward, "forward", arch, out=Rows.of(out)), out


def plan_backward(
    dout: Tensor, x: Inputs, with_bias: bool, arch: str
) -> tuple[Launch, tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]]:
    """The launch of the backward pass and what it will fill: dq, dk, dv, dbias, dgate.

    dbias is float32, or None unless `with_bias`; of a bias that problems share, it is of the whole
    plane in torch's deterministic mode, for the caller to sum. dgate is float32, one number per
    query.
    """
    dq, dk, dv = (rows_like(y, y.shape[1], y.shape[3]) for y in (x.q, x.k, x.v))
    dgate = torch.empty(x.q.shape[:3], dtype=torch.float32, device=dout.device)
    dbias, shared = None, x.bias is not None and tuple(x.bias.shape) != x.plane
    if with_bias and x.bias is not None:
        in_order = shared and torch.are_deterministic_algorithms_enabled()
        shape = x.plane if in_order else x.bias.shape
        dbias, shared = (
            torch.zeros(shape, dtype=torch.float32, device=dout.device),
            shared and not in_order,
        )
    launch = launch_of(
        x, short_backward, "backward", arch,
        dout=Rows.of(dout), dq=Rows.of(dq), dk=Rows.of(dk), dv=Rows.of(dv),
        dbias=_whole_plane(dbias, x.plane), dgate=Rows(dgate, *dgate.stride()),
        SHARED_BIAS=shared,
    )  # fmt: skip
    return launch, (dq, dk, dv, dbias, dgate)


@triton.jit
def base(first, offsets):
    """Where a group of problems from `first` on begins: batch and token of the tensors."""
    if offsets is None:
        return first, 0
    else:
        return 0, tl.load(offsets + first).to(tl.int32)


@triton.jit
def begin(x, batch0, head, place0):
    """Pointer to the first row of a group in `x`."""
    return origin(x, batch0, head) + tl.cast(place0, tl.int64) * x.token


@triton.jit
def locate(row, first, tokens, together, problems, offsets):
    """For rows of a group of problems: problem, token, where it lies, and whether it exists.

    The problem counts from `first`; it lies (batch, place) after the group's base.
    """
    if offsets is None:
        problem, token = row // tokens, row % tokens
        return problem, token, problem, token, (problem < together) & (first + problem < problems)
    else:
        last = tl.minimum(first + together, problems)
        zero = tl.load(offsets + first).to(tl.int32)
        problem = row * 0
        for later in range(first + 1, last):
            problem += (zero + row >= tl.load(offsets + later)).to(tl.int32)
        token = zero + row - tl.load(offsets + first + problem).to(tl.int32)
        return problem, token, row * 0, row, zero + row < tl.load(offsets + last)


@triton.jit
def whole_plane_pointers(x, first, head, problem, i, j):
    """Pointers (queries, keys) to a plane with the problem and query of each row."""
    start = x.data + tl.cast(head, tl.int64) * x.head + tl.cast(first, tl.int64) * x.batch
    return start + (problem * x.batch + i * x.query)[:, None] + (j * x.key)[None, :]


@triton.jit
def softmax(s, first, head, problem, i, j, same, bias, mask):
    """Weights from scores in units of log 2; rows that may see nothing are 0."""
    if bias.data is not None:
        at = whole_plane_pointers(bias, first, head, problem, i, j)
        s += in_log2(tl.load(at, mask=same, other=0.0))
    if mask.data is not None:
        at = whole_plane_pointers(mask, first, head, problem, i, j)
        s = tl.where(tl.load(at, mask=same, other=0) != 0, s, float("-inf"))
    s = tl.where(same, s, float("-inf"))
    top = tl.max(s, 1)
    p = weights_under(s, top)
    return p / normalizer(tl.sum(p, 1))[:, None]


@triton.jit
def load_gate(gate, first, head, batch0, place0, problem, batch, place, exists):
    """The gate of each row: its problem's, or its own."""
    if gate.token is None:
        start = tl.cast(first, tl.int64) * gate.batch + head * gate.head
        offset = problem * gate.batch
    else:
        start = displacement(gate, batch0, head) + tl.cast(place0, tl.int64) * gate.token
        offset = batch * gate.batch + place * gate.token
    return tl.load(gate.data + start + offset, mask=exists, other=0.0).to(tl.float32)


@triton.jit
def short_forward(
    q, k, v, bias, mask, offsets, gate, seed, out,
    problems, head_count, queries, keys, together, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes `out` for `together` problems whose keys share one tile; queries come in strips.

    Scores between problems are computed and masked: that costs up to BLOCK_K / tokens times the
    FLOPs but keeps rows of memory whole. Useful FLOPs 2 T^2 (D + Dv) and bytes 2 (D + Dv) T per
    head, T / 2 FLOPs a byte at 16 bits: bound by memory on every GPU in the table.
    Source: Vaswani et al., 2017, arXiv 1706.03762, eq. (1).
    """
    head = tl.program_id(0) % head_count
    first = tl.program_id(0) // head_count * together
    batch0, place0 = base(first, offsets)
    key_problem, j, k_batch, k_place, is_key = locate(
        tl.arange(0, BLOCK_K), first, keys, together, problems, offsets
    )
    start = begin(k, batch0, head, place0)
    key = load_rows(start, k_batch * k.batch + k_place * k.token, is_key, DIM, BLOCK_D)
    start = begin(v, batch0, head, place0)
    value = load_rows(start, k_batch * v.batch + k_place * v.token, is_key, V_DIM, BLOCK_D)
    for strip in range(0, BLOCK_K, BLOCK_Q):
        problem, i, batch, place, exists = locate(
            strip + tl.arange(0, BLOCK_Q), first, queries, together, problems, offsets
        )
        start = begin(q, batch0, head, place0)
        query = load_rows(start, batch * q.batch + place * q.token, exists, DIM, BLOCK_D)
        s = dot(query, tl.trans(key), None, PRECISION) * (scale * LOG2E)
        same = exists[:, None] & is_key[None, :] & (problem[:, None] == key_problem[None, :])
        p = softmax(s, first, head, problem, i, j, same, bias, mask)
        if seed is not None:
            which = ((first + problem) * head_count + head)[:, None]
            p *= dropout_factor_at(seed, dropout, which, i[:, None], j[None, :])
        attended = dot(p.to(value.dtype), value, None, PRECISION)
        if gate.data is not None:
            g = load_gate(gate, first, head, batch0, place0, problem, batch, place, exists)
            attended *= g[:, None]
        start = begin(out, batch0, head, place0)
        offset = batch * out.batch + place * out.token
        store_rows(start, offset, attended, exists, V_DIM, BLOCK_D)


@triton.jit
def short_backward(
    q, k, v, bias, mask, offsets, gate, seed, dout, dq, dk, dv, dbias, dgate,
    problems, head_count, queries, keys, together, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
    SHARED_BIAS: tl.constexpr,
):  # fmt: skip
    """Writes dq, dk, dv and dgate; adds to dbias. Nothing but the inputs is read: P is recomputed.

    With P the weights and g the gate, dgate = sum_j P (dout v^T) and dS = g P (dout v^T - dgate).
    Useful FLOPs 2 T^2 (3 D + 2 Dv) and bytes 2 (4 D + 3 Dv) T at 16 bits per head: bound by
    memory, and with a shared bias by its T^2 atomic additions per head; in torch's deterministic
    mode that bias's gradient is stored whole, 4 T^2 bytes more, and summed afterwards.
    Source: Dao, 2023, "FlashAttention-2", arXiv 2307.08691, algorithm 2.
    """
    head = tl.program_id(0) % head_count
    first = tl.program_id(0) // head_count * together
    batch0, place0 = base(first, offsets)
    key_problem, j, k_batch, k_place, is_key = locate(
        tl.arange(0, BLOCK_K), first, keys, together, problems, offsets
    )
    start = begin(k, batch0, head, place0)
    key = load_rows(start, k_batch * k.batch + k_place * k.token, is_key, DIM, BLOCK_D)
    start = begin(v, batch0, head, place0)
    value = load_rows(start, k_batch * v.batch + k_place * v.token, is_key, V_DIM, BLOCK_D)
    d_key = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    d_value = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    for strip in range(0, BLOCK_K, BLOCK_Q):
        problem, i, batch, place, exists = locate(
            strip + tl.arange(0, BLOCK_Q), first, queries, together, problems, offsets
        )
        start = begin(q, batch0, head, place0)
        query = load_rows(start, batch * q.batch + place * q.token, exists, DIM, BLOCK_D)
        s = dot(query, tl.trans(key), None, PRECISION) * (scale * LOG2E)
        same = exists[:, None] & is_key[None, :] & (problem[:, None] == key_problem[None, :])
        p = softmax(s, first, head, problem, i, j, same, bias, mask)
        start = begin(dout, batch0, head, place0)
        d_out = load_rows(start, batch * dout.batch + place * dout.token, exists, V_DIM, BLOCK_D)
        dp = dot(d_out, tl.trans(value), None, PRECISION)
        dropped = p
        if seed is not None:
            which = ((first + problem) * head_count + head)[:, None]
            factor = dropout_factor_at(seed, dropout, which, i[:, None], j[None, :])
            dropped = p * factor
            dp *= factor
        mean = tl.sum(p * dp, 1)
        if gate.data is not None:
            start = begin(dgate, batch0, head, place0)
            tl.store(start + batch * dgate.batch + place, mean, mask=exists)
            g = load_gate(gate, first, head, batch0, place0, problem, batch, place, exists)
            p *= g[:, None]
            dropped *= g[:, None]
        d_value = dot(tl.trans(dropped.to(d_out.dtype)), d_out, d_value, PRECISION)
        ds = p * (dp - mean[:, None])
        if dbias.data is not None:
            at = whole_plane_pointers(dbias, first, head, problem, i, j)
            if SHARED_BIAS:
                tl.atomic_add(at, ds, mask=same, sem="relaxed")
            else:
                tl.store(at, ds, mask=same)
        ds = ds.to(query.dtype)
        d_key = dot(tl.trans(ds), query, d_key, PRECISION)
        d_query = dot(ds, key, None, PRECISION) * scale
        start = begin(dq, batch0, head, place0)
        store_rows(start, batch * dq.batch + place * dq.token, d_query, exists, DIM, BLOCK_D)
    start = begin(dk, batch0, head, place0)
    offset = k_batch * dk.batch + k_place * dk.token
    store_rows(start, offset, d_key * scale, is_key, DIM, BLOCK_D)
    start = begin(dv, batch0, head, place0)
    offset = k_batch * dv.batch + k_place * dv.token
    store_rows(start, offset, d_value, is_key, V_DIM, BLOCK_D)
