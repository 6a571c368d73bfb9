"""What `benchmarks.kernels` compiles: every kernel with the tiles that calls are dispatched to."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from core_attn.ops._attention import triton_backward, triton_forward
from core_attn.ops._attention import triton_call as attention_call
from core_attn.ops._attention.triton_tiles import WIDTHS
from core_attn.ops._edge_attention import triton_kernels as edges
from core_attn.ops._gather_attention import triton_call as list_call
from core_attn.ops._gather_attention import triton_plans as lists
from core_attn.ops._lif import triton_kernels as lif
from core_attn.ops._pluecker_mean import triton_kernels as pluecker
from core_attn.ops._short_attention import triton_call as short_call
from core_attn.ops._short_attention import triton_kernels as short
from core_attn.ops._short_attention.triton_tiles import TILES as SHORT_TILES
from core_attn.ops._triton_common import Launch
from core_attn.ops._wkv import triton_kernels as wkv

from .kernels_roofline import (
    Work,
    along_work,
    attention_work,
    edge_work,
    list_work,
    short_work,
)

ARCHITECTURES = ("sm80", "sm90", "sm100", "gfx942")
HALVES = {False: torch.float16, True: torch.bfloat16}
LISTS = ("gather_attention", "cluster_attention", "neighborhood_attention")
ALONG = ("wkv", "lif", "pluecker_mean")
EDGE_PASSES = ("forward", "backward", "tangent")
DEGREES = {16: (6, 4, 3, 2, 1), 64: (20, 10, 4, 10, 20)}  # channels of a head for each
FEATURES = {
    "short_attention": ("padded", "packed"), "edge_attention": ("bias", "bias"),
} | dict.fromkeys(ALONG, ("state", "state"))  # fmt: skip


class Case(NamedTuple):
    """A kernel with tiles that some call is dispatched to."""

    operator: str
    kernel: str
    arch: str
    size: int  # bytes of the dtype
    tokens: int  # of short problems, edges of an atom, else 0
    width: int
    full: bool  # with all there is to add; short_attention: packed
    aligned: bool  # tokens in multiples of 16, or a split of heads and an odd number of tokens

    @property
    def dtype(self) -> torch.dtype:
        """Plain and padded launches are compiled in float16, full and packed ones in bfloat16."""
        return torch.float32 if self.size == 4 else HALVES[self.full]

    @property
    def features(self) -> str:
        """What the launch is compiled with, in a word."""
        return FEATURES.get(self.operator, ("plain", "full"))[self.full]

    @property
    def dims(self) -> str:
        """What `width` counts."""
        return "channels" if self.operator in ALONG else "head dim"

    @property
    def has_products(self) -> bool:
        """Whether tensor cores have something to do."""
        return self.operator not in (*ALONG, "gather_attention")

    def launch(self) -> Launch:
        """The launch that the backend plans for such a call."""
        if self.operator in LISTS:
            return plan_lists(self)
        if self.operator in ALONG:
            return plan_along(self)
        if self.operator == "edge_attention":
            return plan_edges(self)
        return plan_attention(self) if self.operator == "attention" else plan_short(self)

    @property
    def shown(self) -> bool:
        """Whether the page and the continuous integration have it."""
        if self.operator in ALONG:
            return True
        if self.operator == "cluster_attention":
            return False
        if self.operator == "edge_attention":
            return self.width == 64
        widest = 128 if self.operator == "attention" and self.full else 64
        return self.size == 2 and not self.aligned and self.width == widest

    def work(self) -> Work:
        """What a large call has to compute and to move."""
        if self.operator == "attention":
            return attention_work(self.kernel, self.size, self.width, self.full)
        if self.operator in LISTS:
            return list_work(self.operator, self.kernel, self.size, self.width, self.full)
        if self.operator in ALONG:
            return along_work(self.operator, self.kernel, self.width)
        if self.operator == "edge_attention":
            return edge_work(self.kernel, self.tokens, self.width, len(DEGREES[self.width]))
        return short_work(self.kernel, self.size, self.tokens, self.width)

    def tensor(self, batch: int, heads: int, tokens: int) -> Tensor:
        """Queries, keys or values; unaligned ones are a part of all three, heads within tokens."""
        if self.aligned:
            return torch.zeros(batch, heads, tokens, self.width, dtype=self.dtype)
        fused = torch.zeros(batch, tokens, 3, heads, self.width, dtype=self.dtype)
        return fused[:, :, 1].transpose(1, 2)


def cases() -> Iterator[Case]:
    for kernel in ("forward", "queries", "keys", "bias"):
        for arch in ARCHITECTURES:
            for size, widths in WIDTHS.items():
                for width in widths:
                    for full in (True,) if kernel == "bias" else (False, True):
                        for aligned in (True, False):
                            yield Case("attention", kernel, arch, size, 0, width, full, aligned)
    for kernel in ("forward", "backward"):
        for (arch, size), entries in SHORT_TILES.items():
            for entry in entries:
                for packed in (False, True):
                    for aligned in (True, False):
                        yield Case(
                            "short_attention", kernel, arch, size, entry.tokens, entry.width,
                            packed, aligned,
                        )  # fmt: skip
    for operator in LISTS:
        for kernel in ("forward", "backward"):
            for arch in ARCHITECTURES:
                for size, width in ((2, 64), (2, 128), (4, 64)):
                    for full in (False, True):
                        yield Case(operator, kernel, arch, size, 0, width, full, False)
    for kernel in EDGE_PASSES:
        for arch in ARCHITECTURES:
            for width in DEGREES:
                yield Case("edge_attention", kernel, arch, 4, 32, width, False, False)
    for operator in ALONG:
        for kernel in ("forward", *(["sums"] if operator != "pluecker_mean" else []), "backward"):
            for arch in ARCHITECTURES:
                width = 32 if operator == "pluecker_mean" else 768
                yield Case(operator, kernel, arch, 4, 0, width, False, False)


def plan_attention(case: Case) -> Launch:
    """Causal and grouped, lengths and gate; where full a window, a bias, a mask and dropout."""
    batch, heads, tokens, full = 2, 8, 256 if case.aligned else 197, case.full
    q, dout = (case.tensor(batch, heads, tokens) for _ in range(2))
    k = q if full else case.tensor(batch, heads // 4, tokens)
    grouped = None if full else [head // 4 for head in range(heads)]
    x = attention_call.Inputs(
        q, k, k,
        bias=torch.zeros(1 if case.kernel == "bias" else batch, heads, tokens, tokens)
        if full else None,
        mask=torch.zeros(batch, 1, tokens, tokens, dtype=torch.bool) if full else None,
        lengths=torch.zeros(batch, dtype=torch.int64),
        gate=torch.zeros(batch, heads, tokens, dtype=case.dtype),
        seed=torch.zeros(1, dtype=torch.int64) if full else None,
        k_map=grouped, v_map=grouped, window=[tokens // 2, 16] if full else [tokens, 0], scale=0.1,
        dropout=0.1,
    )  # fmt: skip
    if case.kernel == "forward":
        return triton_forward.plan(x, case.arch)[0][0]
    lse = torch.zeros(batch, heads, tokens)
    launches, _ = triton_backward.plan(dout, None, dout, lse, x, full, case.arch)
    return launches[{"queries": 0, "bias": 1, "keys": -1}[case.kernel]]


def plan_short(case: Case) -> Launch:
    """Everything at once: a shared bias, a mask, dropout and a gate."""
    problems, heads, tokens = 64, 4, case.tokens if case.aligned else case.tokens * 3 // 4 + 1
    rows = (1, problems * tokens) if case.full else (problems, tokens)
    q, dout = (case.tensor(rows[0], heads, rows[1]) for _ in range(2))
    x = short_call.Inputs(
        q, q, q,
        bias=torch.zeros(1, heads, tokens, tokens),
        mask=torch.zeros(problems, 1, tokens, tokens, dtype=torch.bool),
        offsets=torch.arange(problems + 1) * tokens if case.full else None,
        gate=torch.zeros(q.shape[:3], dtype=case.dtype),
        seed=torch.zeros(1, dtype=torch.int64),
        longest=tokens, scale=0.1, dropout=0.1,
    )  # fmt: skip
    if case.kernel == "forward":
        return short.plan_forward(x, case.arch)[0]
    return short.plan_backward(dout, x, True, case.arch)[0]


def plan_lists(case: Case) -> Launch:
    """49 of 197 keys a query, clusters of 65 or blocks of 8 x 8 with a halo of 3; where full all.

    That is relative logits for blocks always, and a bias, keys beside the list, dropout and, but
    for clusters, weights added after the softmax.
    """
    batch, heads, full, blocks = 2, 4, case.full, case.operator == LISTS[2]
    members, groups, picks = {
        LISTS[0]: (1, 197, 49), LISTS[1]: (65, 3, 65), LISTS[2]: (64, 4, 196),
    }[case.operator]  # fmt: skip
    tokens = 256 if blocks else 197
    q, dout = (case.tensor(batch, heads, tokens) for _ in range(2))
    shared = (1, 1) if blocks else (batch, heads)
    by_member = case.operator == LISTS[1]
    if by_member:
        dout = case.tensor(batch, heads, groups * members)
    x = list_call.Inputs(
        q, q, q,
        queries=None if members == 1 else torch.zeros(*shared, groups, members, dtype=torch.int64),
        keys=torch.zeros(*shared, groups, picks, dtype=torch.int64),
        ranked=torch.zeros(batch, heads, tokens, 28) if blocks else None,
        bias=torch.zeros(1, heads, 1, 1, picks) if full else None,
        extra_k=torch.zeros(batch, heads, 1, 9, case.width, dtype=case.dtype) if full else None,
        extra_v=torch.zeros(batch, heads, 1, 9, case.width, dtype=case.dtype) if full else None,
        extra_bias=None,
        added=torch.zeros(batch, heads, tokens, picks, dtype=case.dtype)
        if full and not by_member else None,
        seed=torch.zeros(1, dtype=torch.int64) if full else None,
        window=[14, 14] if blocks else None, masked=not blocks or full, by_member=by_member,
        causal=by_member, self_bias=-5e4 if by_member else 0.0, scale=0.1, dropout=0.1,
    )  # fmt: skip
    if case.kernel == "forward":
        return lists.plan_forward(x, case.arch)[0]
    lse = torch.zeros(batch, heads, groups, members)
    return lists.plan_backward(dout, dout, lse, x, full, case.arch)[0]


def plan_edges(case: Case) -> Launch:
    """Atoms with 32 edges each, eight heads."""
    atoms, heads, longest = 4, 8, case.tokens
    x = torch.zeros(atoms * longest, heads, case.width)
    row, u, bias = x[:, :, 0].contiguous(), x[:, 0, :3].contiguous(), x[:, 0, 0].contiguous()
    names = ("k", "grad", "tq", "tk", "tv", "out", "dq", "dk", "dv", "dgrad")
    parts = dict.fromkeys(("du_asking", "du_asked", "dbias"), row)
    return edges.plan(
        EDGE_PASSES.index(case.kernel), x, x, torch.arange(atoms + 1) * longest,
        torch.tensor(DEGREES[case.width]), 0.1, False, longest, case.arch, u=u, tu=u, bias=bias,
        tbias=bias, **dict.fromkeys(names, x), **parts,
    )  # fmt: skip


def plan_along(case: Case) -> Launch:
    """Texts of 197 tokens; planes of six offsets."""
    x = torch.zeros(2, 197, case.width)
    if case.operator == "pluecker_mean":
        offsets, dim = [1, 2, 4, 8, 12, 16], case.width
        if case.kernel == "forward":
            return pluecker.plan_forward(x, offsets, 1e-6)[0]
        grad = torch.zeros(2, 197, dim * (dim - 1) // 2)
        return pluecker.plan_backward(grad, x, offsets, 1e-6)[0]
    row, state = torch.zeros(case.width), torch.zeros(2, 3, case.width)
    if case.operator == "wkv":
        forward, _ = wkv.plan_forward(x, x, row, row, state)
        launches, _ = wkv.plan_backward(x, state, x, x, row, row, state)
    else:
        forward, _ = lif.plan_forward(x, state[:, 0], 2.0, 1.0)
        launches, _ = lif.plan_backward(x, state[:, 0], x, state[:, 0], 2.0, 1.0)
    return {"forward": forward, "sums": launches[0], "backward": launches[1]}[case.kernel]
