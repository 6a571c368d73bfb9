"""The forward kernel of `attention`: one program per tile of queries, online softmax over keys."""

from typing import Any, NamedTuple

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
    origin,
    precision,
    store_rows,
)
from .._triton_host import Tiles, as_bytes, rows_like
from .triton_tiles import tiles_for


class Inputs(NamedTuple):
    """The arguments of an attention call with one batch axis, as the operators pass them on.

    `bias` and `mask` are (batch, heads, queries, keys) and `gate` is (batch, heads, queries), any
    of these axes 1; `seed` is there where weights are dropped.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None
    mask: Tensor | None
    lengths: Tensor | None
    gate: Tensor | None
    seed: Tensor | None
    k_map: list[int] | None
    v_map: list[int] | None
    window: list[int] | None
    scale: float
    dropout: float

    @property
    def plane(self) -> tuple[int, int, int, int]:
        """The shape of the scores."""
        batch, heads, queries, _ = self.q.shape
        return batch, heads, queries, self.k.shape[2]

    def launch(
        self, kernel: Any, name: str, arch: str, per_program: str, tiles: Tiles | None = None,
        **outputs: Any,
    ) -> Launch:  # fmt: skip
        """`kernel` over all heads, with tiles of `per_program` "queries" or "keys" per program."""
        batch, heads, queries, keys = self.plane
        dim, v_dim = self.q.shape[3], self.v.shape[3]
        width = max(32, triton.next_power_of_2(max(dim, v_dim)))
        full = self.bias is not None or self.mask is not None or self.seed is not None
        tiles = tiles or tiles_for(arch, name, full, self.q.element_size(), width)
        tokens, block = (queries, tiles.queries) if per_program == "queries" else (keys, tiles.keys)
        gate = self.gate if self.gate is None else self.gate[..., None]
        reach = queries + keys  # a window beyond it would only overflow
        args = {
            "q": Rows.of(self.q),
            "k": Rows.of(self.k),
            "v": Rows.of(self.v),
            "bias": Plane.of(self.bias, self.plane),
            "mask": Plane.of(as_bytes(self.mask), self.plane),
            "lengths": self.lengths,
            "gate": Plane.of(gate, (batch, heads, queries, 0)),
            "seed": self.seed,
            "k_map": head_rows(self.k_map, self.q.device),
            "v_map": head_rows(self.v_map, self.q.device),
            "head_count": heads,
            "queries": queries,
            "keys": keys,
            "window": self.window and tuple(min(distance, reach) for distance in self.window),
            "scale": self.scale,
            "dropout": self.dropout,
            "DIM": dim,
            "V_DIM": v_dim,
            "PRECISION": precision(arch),
            "INDEX": index_dtype(arch, self.q, self.k, self.v, self.bias, self.mask),
            **outputs,
            **tiles.options(width),
        }
        return Launch(kernel, triton.cdiv(tokens, block) * batch * heads, args)


def plan(
    x: Inputs, arch: str, tiles: Tiles | None = None
) -> tuple[Launch, tuple[Tensor, Tensor, Tensor]]:
    """The launch of the forward pass and what it will fill: out, ungated heads (or none), lse.

    `tiles` take the place of the table's.
    """
    shape = (*x.q.shape[:3], x.v.shape[3])
    out = rows_like(x.q, shape[1], shape[3])
    heads = x.q.new_empty(0) if x.gate is None else rows_like(x.q, shape[1], shape[3])
    lse = x.q.new_empty(shape[:3], dtype=torch.float32)
    launch = x.launch(
        attention_forward, "forward", arch, "queries", tiles,
        out=Rows.of(out), heads=heads, lse=lse,
    )  # fmt: skip
    return launch, (out, heads, lse)


@triton.jit
def forbid(s, batch, head, i, j, queries, keys, end, bias, mask, window, INDEX: tl.constexpr):
    """Adds the bias to scores in units of log 2 and puts -inf where a key may not be seen."""
    if bias is not None:
        s += in_log2(load_plane(bias, batch, head, i, j, queries, keys, INDEX))
    seen = j < end
    if mask is not None:
        seen &= load_plane(mask, batch, head, i, j, queries, keys, INDEX) != 0
    if window is not None:
        from_left = j - i + (queries - keys + window[0])
        seen &= from_left.to(tl.uint32) <= window[0] + window[1]  # and >= 0
    return tl.where(seen, s, float("-inf"))


@triton.jit
def key_range(first, keys, queries, end, window, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    """The keys, from a multiple of BLOCK_K, that some query of first .. first + BLOCK_Q sees."""
    low, high = 0, end
    if window is not None:
        position = first + keys - queries
        low = tl.maximum(position - window[0], 0) // BLOCK_K * BLOCK_K
        high = tl.minimum(position + BLOCK_Q + window[1], end)
    return low, high


@triton.jit
def attention_forward(
    q, k, v, bias, mask, lengths, gate, seed, k_map, v_map, out, heads, lse,
    head_count, queries, keys, window, scale, dropout,
    DIM: tl.constexpr, V_DIM: tl.constexpr, PRECISION: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes `out`, the logarithm (base 2) of each row's normaliser, and the ungated heads.

    FLOPs 2 Tq Tk (D + Dv) per head; bytes q, k, v, out once, as k and v stay in L2 between the
    tiles of a head: T / 2 FLOPs a byte at 16 bits, so bound by computation from about 600 keys on
    (H100), by memory below. The products take turns with exp2 and the masks: a third of the
    tensor cores' peak is expected at D = 64 on an H100. A full bias plane leaves 4 D FLOPs for its
    5 bytes a score. docs/kernels.md has the estimate of every configuration.
    Source: Dao, 2023, "FlashAttention-2", arXiv 2307.08691, algorithm 1.
    """
    tiles = tl.cdiv(queries, BLOCK_Q)
    batch_head = tl.program_id(0) // tiles
    first = (tiles - 1 - tl.program_id(0) % tiles) * BLOCK_Q  # under causality the longest first
    batch, head = batch_head // head_count, batch_head % head_count
    k_head = head if k_map is None else tl.load(k_map + head)
    v_head = head if v_map is None else tl.load(v_map + head)
    end = keys if lengths is None else tl.minimum(tl.load(lengths + batch), keys).to(tl.int32)

    i = first + tl.arange(0, BLOCK_Q)
    i_at, is_query = i.to(INDEX), i < queries
    query = load_rows(origin(q, batch, head), i_at * q.token, is_query, DIM, BLOCK_D)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    attended = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    low, high = key_range(first, keys, queries, end, window, BLOCK_Q, BLOCK_K)
    for start in range(low, high, BLOCK_K):
        j = start + tl.arange(0, BLOCK_K)
        j_at, is_key = j.to(INDEX), j < end
        key = load_rows(origin(k, batch, k_head), j_at * k.token, is_key, DIM, BLOCK_D)
        s = dot(query, tl.trans(key), None, PRECISION) * (scale * LOG2E)
        s = forbid(
            s, batch, head, i[:, None], j[None, :], queries, keys, end, bias, mask, window, INDEX
        )
        new_top = tl.maximum(top, tl.max(s, 1))
        safe_top = tl.where(new_top == float("-inf"), 0.0, new_top)
        p = tl.exp2(s - safe_top[:, None])
        shrink = tl.exp2(top - safe_top)
        total = total * shrink + tl.sum(p, 1)
        if seed is not None:
            p *= dropout_factor(seed, dropout, batch_head, i[:, None], j[None, :])
        value = load_rows(origin(v, batch, v_head), j_at * v.token, is_key, V_DIM, BLOCK_D)
        attended = attended * shrink[:, None]
        attended = dot(p.to(value.dtype), value, attended, PRECISION)
        top = new_top

    blind = total == 0.0
    safe_total = tl.where(blind, 1.0, total)
    attended /= safe_total[:, None]
    row = batch_head.to(tl.int64) * queries + i
    tl.store(lse + row, tl.where(blind, float("inf"), top + tl.log2(safe_total)), mask=is_query)
    start = displacement(out, batch, head)
    if gate is not None:
        store_rows(heads + start, i_at * out.token, attended, is_query, V_DIM, BLOCK_D)
        attended *= load_plane(gate, batch, head, i[:, None], 0, queries, 1, INDEX).to(tl.float32)
    store_rows(out.data + start, i_at * out.token, attended, is_query, V_DIM, BLOCK_D)
