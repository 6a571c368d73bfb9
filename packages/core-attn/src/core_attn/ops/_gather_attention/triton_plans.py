"""The launches of attention over lists: what a call becomes for the kernels."""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .._triton_common import Launch, Rows, precision
from .._triton_host import rows_like
from .triton_call import Inputs
from .triton_kernels import lists_backward, lists_forward


class Lists(NamedTuple):
    """Positions (batch, heads, groups, picks), side by side in a list."""

    data: Any
    batch: int
    head: int
    group: int

    @classmethod
    def of(cls, x: Tensor | None) -> "Lists | None":
        """Addresses `x`, or a copy where its lists are not side by side; None stays None."""
        if x is None:
            return None
        x = x if x.stride(3) == 1 else x.contiguous()
        return cls(x, *_strides(x, 3))


class Slots(NamedTuple):
    """A number for every slot of a list, by group and member or by query.

    The strides of axes over which it broadcasts are 0; those that it does not have are None. Where
    it is not given it has no data.
    """

    data: Any
    batch: int
    head: int
    group: int | None
    member: int | None
    query: int | None
    slot: int

    @classmethod
    def of(cls, x: Tensor | None) -> "Slots":
        """Addresses (batch, heads, groups, members, slots) or (batch, heads, queries, slots)."""
        if x is None:
            return cls(None, 0, 0, None, None, None, 0)
        batch, head, *rows, slot = _strides(x, x.dim())
        group, member, query = (*rows, None) if len(rows) == 2 else (None, None, *rows)
        return cls(x, batch, head, group, member, query, slot)


class Extra(NamedTuple):
    """Rows (batch, heads, groups, extra, dim) that a group sees beside its list."""

    data: Any
    batch: int
    head: int
    group: int
    token: int

    @classmethod
    def of(cls, x: Tensor | None) -> "Extra | None":
        """Addresses `x`, or a copy where its dims are not side by side; None stays None."""
        if x is None:
            return None
        x = x if x.stride(4) == 1 else x.contiguous()
        return cls(x, *_strides(x, 4))


def _strides(x: Tensor, axes: int) -> list[int]:
    return [s if n > 1 else 0 for s, n in zip(x.stride()[:axes], x.shape, strict=False)]


class Gradients(NamedTuple):
    """What the backward pass fills: in float32 and to be summed over axes that broadcast."""

    q: Tensor
    k: Tensor
    v: Tensor
    ranked: Tensor | None
    bias: Tensor | None
    extra_k: Tensor | None
    extra_v: Tensor | None
    extra_bias: Tensor | None
    added: Tensor | None


def launch_of(x: Inputs, kernel: Any, name: str, arch: str, **outputs: Any) -> Launch:
    """`kernel` over all groups of all heads."""
    batch, heads, groups, members, picks = x.plane
    dims, tiles = (x.q.shape[3], x.v.shape[3]), x.tiles(arch, name)
    window = [*(x.window or []), 1, 1, 1]
    args = {
        "q": Rows.of(x.q), "k": Rows.of(x.k), "v": Rows.of(x.v),
        "queries": Lists.of(x.queries), "keys": Lists.of(x.keys),
        "ranked": Slots.of(x.ranked), "bias": Slots.of(x.bias),
        "extra_k": Extra.of(x.extra_k), "extra_v": Extra.of(x.extra_v),
        "extra_bias": Slots.of(x.extra_bias), "added": Slots.of(x.added), "seed": x.seed,
        "heads": heads, "groups": groups, "members": members, "picks": picks,
        "extra": 0 if x.extra_k is None else x.extra_k.shape[3],
        "self_bias": x.self_bias or None, "scale": x.scale, "dropout": x.dropout,
        "DIM": dims[0], "V_DIM": dims[1], "MASKED": x.masked, "BY_MEMBER": x.by_member,
        "CAUSAL": x.causal, "AXES": len(x.window or []),
        "W0": window[0], "W1": window[1], "W2": window[2], "PRECISION": precision(arch),
        **outputs, **tiles.options(x.problem.width),
    }  # fmt: skip
    return Launch(kernel, batch * heads * groups * triton.cdiv(members, tiles.queries), args)


def plan_forward(x: Inputs, arch: str) -> tuple[Launch, tuple[Tensor, Tensor, Tensor]]:
    """The launch and what it fills: outputs, outputs before `added` (empty without), lse."""
    batch, heads, groups, members, _ = x.plane
    out, soft = x.output(), x.q.new_empty(0) if x.added is None else x.output()
    lse = x.q.new_empty((batch, heads, groups, members), dtype=torch.float32)
    written = {"out": Rows.of(out), "soft": soft, "lse": lse}
    return launch_of(x, lists_forward, "forward", arch, **written), (out, soft, lse)


def plan_backward(
    dout: Tensor, soft: Tensor, lse: Tensor, x: Inputs, with_bias: bool, arch: str
) -> tuple[Launch, Gradients]:
    """The launch and what it fills; where a tile of members has one bias, a row for each tile."""
    batch, heads, groups, members, picks = x.plane
    wide = torch.float32

    def zeros(like: Tensor) -> Tensor:
        return like.new_zeros(like.shape, dtype=wide)

    def if_there(like: Tensor | None) -> Tensor | None:
        return None if like is None else zeros(like)

    dq = zeros(x.q) if x.by_member else rows_like(x.q, heads, x.q.shape[3])
    dbias, tiled = None, False
    if with_bias and x.bias is not None:
        tiled = x.bias.shape[3] == 1
        rows = members
        if tiled:
            rows = triton.cdiv(members, x.tiles(arch, "backward").queries)
        dbias = x.q.new_empty((batch, heads, groups, rows, picks), dtype=wide)
    dextra = None
    if x.extra_bias is not None and x.extra_k is not None:
        full = (batch, heads, groups, members) if x.extra_bias.dim() == 5 else x.q.shape[:3]
        dextra = x.q.new_zeros((*full, x.extra_k.shape[3]), dtype=wide)
    found = Gradients(
        dq, zeros(x.k), zeros(x.v), if_there(x.ranked), dbias, if_there(x.extra_k),
        if_there(x.extra_v), dextra, if_there(x.added),
    )  # fmt: skip
    columns = 0 if x.ranked is None else x.ranked.shape[3]
    launch = launch_of(
        x, lists_backward, "backward", arch, dout=Rows.of(dout), soft=Rows.of(soft), lse=lse,
        dq=Rows.of(dq), dk=Rows.of(found.k), dv=Rows.of(found.v), dranked=Slots.of(found.ranked),
        dbias=Slots.of(dbias), dextra_k=Extra.of(found.extra_k), dextra_v=Extra.of(found.extra_v),
        dextra_bias=Slots.of(dextra), dadded=Slots.of(found.added), TILED=tiled,
        RANKS=columns, BLOCK_C=max(16, triton.next_power_of_2(columns)),
    )  # fmt: skip
    return launch, found
