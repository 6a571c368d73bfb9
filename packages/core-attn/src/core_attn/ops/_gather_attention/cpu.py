"""Attention over lists on a CPU: the C kernel as operators of torch, differentiable once."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._normal import one_batch
from .._recompute import twice_differentiable
from .._schema import gradients_of, schema_of
from . import native, reference
from .call import GatherCall

FLOATS = ("q", "k", "v")


class Arguments(NamedTuple):
    """What the kernel takes, in float32 with one batch axis.

    Indices are (batch or 1, heads or 1, groups, members or picks) in int64; without `queries` group
    g is query g. Tables are (1 or heads, 2 window - 1, dim), one per axis of the window that is
    given, and slot_bias is (1 or heads, picks). Outputs lie by query, or by group and member.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    queries: Tensor | None
    keys: Tensor
    table0: Tensor | None
    table1: Tensor | None
    table2: Tensor | None
    slot_bias: Tensor | None
    window: list[int] | None
    inner: list[int] | None
    masked: bool
    by_member: bool
    causal: bool
    self_bias: float
    scale: float

    @property
    def tables(self) -> list[Tensor]:
        """The relative tables that there are."""
        return [x for x in (self.table0, self.table1, self.table2) if x is not None]


TENSORS = Arguments._fields.index("window")
INPUTS = schema_of(Arguments)
RESULTS = ", ".join(["Tensor"] * 7)  # gradients of q, k, v, the tables and slot_bias


def run(call: GatherCall) -> Tensor:
    """Brings the arguments to the kernel's form."""
    q, k, v = (one_batch(x).float() for x in (call.q, call.k, call.v))
    keys = one_batch(call.keys).long()
    queries = None if call.queries is None else one_batch(call.queries).long()
    if call.key_mask is not None:
        seen = one_batch(call.key_mask, 1)[:, None].expand(*keys.shape[:2], -1)
        listed = seen.gather(2, keys.clamp(min=0).flatten(2)).view(keys.shape)
        keys = keys.masked_fill(~listed, -1)
    out = attend(
        Arguments(
            q, k, v, queries, keys, None, None, None, None, None, None, True, queries is not None,
            call.causal, call.self_bias, call.scale,
        )
    )  # fmt: skip
    members = 1 if queries is None else queries.shape[-1]
    out = out.unflatten(2, (-1, members)).reshape(*call.keys.shape[:-1], members, v.shape[-1])
    out = out.to(call.q.dtype)
    return twice_differentiable(out, "gather_attention", reference.run, call, FLOATS)


def refuses(call: GatherCall) -> str | None:
    """It takes lists and clusters without memory, biases or tables, on a CPU with a C compiler."""
    for name in ("bias", "memory_k", "relative_k", "relative_v"):
        if getattr(call, name) is not None:
            return f"the kernel has no {name}"
    if 0 in (x.shape[-1] for x in (call.queries, call.keys) if x is not None):
        return "the lists are empty"
    return misfit(call.q, call.v, call.dropout)


def misfit(q: Tensor, v: Tensor, dropout: float) -> str | None:
    """Why the kernel cannot take queries and values like these."""
    if 0 in (q.shape[-1], v.shape[-1]):
        return "the head dim is 0"
    if q.device.type != "cpu":
        return f"the tensors are on {q.device.type}"
    if q.dtype == torch.float64:
        return "it computes in float32, the tensors are float64"
    if dropout > 0:
        return "the kernel drops no weights"
    return native.missing()


def reluctant(call: Any) -> str | None:
    """It leaves exports to torch's own operators, which load without this package."""
    return "exports are left to torch's own operators" if torch.compiler.is_exporting() else None


def attend(x: Arguments) -> Tensor:
    """The kernel, differentiable; by the quicker of two ways where nothing is traced."""
    return forward(*x) if torch.compiler.is_compiling() else _Attend.apply(*x)


# ---- the operators ----


@torch.library.custom_op(
    "core_attn::gather_attention",
    mutates_args=(),
    device_types="cpu",
    schema=f"({INPUTS}) -> Tensor",
)
def forward(*inputs):
    """Outputs (batch, heads, queries or groups * members, v_dim)."""
    x = Arguments(*inputs)
    out = _output(x)
    x = _with_rows(x)
    call = _call(x)
    call.out = _rows(out)
    native.solve(call, 0)
    return out


@torch.library.custom_op(
    "core_attn::gather_attention_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor grad, {INPUTS}) -> ({RESULTS})",
)
def backward(grad, *inputs):
    """Gradients of q, k, v, the tables and slot_bias, empty for those that are not there."""
    x = Arguments(*inputs)
    results = _gradients(x)
    x = _with_rows(x)
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    call = _call(x)
    call.grad = _rows(grad)
    call.dq, call.dk, call.dv = map(_rows, results[:3])
    wide = [x.q.new_zeros(x.q.shape[1], *t.shape[1:]) for t in x.tables]
    for axis, table in enumerate(wide):
        call.dtable[axis] = table.data_ptr()
    biases = None
    if x.slot_bias is not None:
        biases = x.q.new_zeros(x.q.shape[1], x.slot_bias.shape[-1])
        call.dslot_bias = biases.data_ptr()
    native.solve(call, 1)
    for found, table in zip(results[3:], wide, strict=False):
        found.copy_(table if len(found) == len(table) else table.sum(0, keepdim=True))
    if biases is not None:
        results[6].copy_(biases if len(results[6]) > 1 else biases.sum(0, keepdim=True))
    return results


@forward.register_fake
def _(*inputs):
    return _output(Arguments(*inputs))


@backward.register_fake
def _(grad, *inputs):
    return _gradients(Arguments(*inputs))


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:TENSORS])
    ctx.rest = inputs[TENSORS:]
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad):
    if grad is None:  # the definition has taken its place
        return gradients_of(Arguments)
    found = backward(grad, *ctx.saved_tensors, *ctx.rest)
    dq, dk, dv, *tables, bias = (x if x.numel() else None for x in found)
    names = {f"table{axis}": x for axis, x in enumerate(tables)}
    return gradients_of(Arguments, q=dq, k=dk, v=dv, slot_bias=bias, **names)


forward.register_autograd(_differentiate, setup_context=_save)
for _operator in (forward, backward):
    _operator.register_autocast("cpu", torch.float32)


class _Attend(torch.autograd.Function):
    """`forward` for eager calls, where a registered derivative costs several times as much."""

    @staticmethod
    def forward(ctx, *inputs):
        _save(ctx, inputs, None)
        return forward(*inputs)

    @staticmethod
    def backward(ctx, *grads):
        return _differentiate(ctx, *grads)


# ---- describing tensors to the kernel ----


def _output(x: Arguments) -> Tensor:
    batch, heads, tokens, _ = x.q.shape
    if x.by_member and x.queries is not None:
        tokens = x.queries.shape[2] * x.queries.shape[3]
    if x.q.stride(1) < x.q.stride(2):  # heads inside of tokens, as after the split of heads
        return x.q.new_empty(batch, tokens, heads, x.v.shape[-1]).transpose(1, 2)
    return x.q.new_empty(batch, heads, tokens, x.v.shape[-1])


def _gradients(x: Arguments) -> tuple[Tensor, ...]:
    tables = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in x.tables]
    tables += [x.q.new_empty(0) for _ in range(native.AXES - len(tables))]
    bias = x.q.new_empty(0) if x.slot_bias is None else x.slot_bias.new_zeros(x.slot_bias.shape)
    return *(_zeros_like(t) for t in (x.q, x.k, x.v)), *tables, bias


def _zeros_like(x: Tensor) -> Tensor:
    batch, heads, tokens, dim = x.shape
    if x.stride(1) < x.stride(2):
        return x.new_zeros(batch, tokens, heads, dim).transpose(1, 2)
    return x.new_zeros(batch, heads, tokens, dim)


def _with_rows(x: Arguments) -> Arguments:
    """Rows, lists and tables side by side, copied only where they are not."""
    names = ("q", "k", "v", "queries", "keys")
    given = {name: getattr(x, name) for name in names}
    changed = {n: t.contiguous() for n, t in given.items() if t is not None and t.stride(-1) != 1}
    whole = ("table0", "table1", "table2", "slot_bias")
    changed |= {n: t.contiguous() for n in whole if (t := getattr(x, n)) is not None}
    return x._replace(**changed)


def _call(x: Arguments) -> native.Call:
    batch, heads, tokens, dim = x.q.shape
    call = native.Call(
        batch=batch, heads=heads, groups=x.keys.shape[2], picks=x.keys.shape[3], dim=dim,
        v_dim=x.v.shape[-1], query_count=tokens, members=1, masked=x.masked, causal=x.causal,
        by_member=x.by_member, self_bias=x.self_bias, scale=x.scale,
    )  # fmt: skip
    call.q, call.k, call.v = map(_rows, (x.q, x.k, x.v))
    call.keys = _index(x.keys)
    if x.queries is not None:
        call.queries, call.members = _index(x.queries), x.queries.shape[3]
    for axis, table in enumerate(x.tables):
        call.table[axis] = table.data_ptr()
        call.table_head[axis] = table.stride(0) if len(table) > 1 else 0
        call.window[axis], call.inner[axis] = (x.window or [])[axis], (x.inner or [])[axis]
    call.axes = len(x.tables)
    if x.slot_bias is not None:
        call.slot_bias = x.slot_bias.data_ptr()
        call.slot_bias_head = x.slot_bias.stride(0) if len(x.slot_bias) > 1 else 0
    return call


def _rows(x: Tensor) -> Any:
    return native.Rows(x.data_ptr(), *x.stride()[:3])


def _index(x: Tensor) -> Any:
    batch, head, group = (s if n > 1 else 0 for s, n in zip(x.stride(), x.shape[:3], strict=False))
    return native.Index(x.data_ptr(), batch, head, group)
