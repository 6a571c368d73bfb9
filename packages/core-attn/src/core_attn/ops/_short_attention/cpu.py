"""short_attention on a CPU: the C kernel as operators of torch, differentiable twice."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._schema import gradients_of, schema_of
from . import native
from .call import ShortCall

TOKENS, CHANNELS = (2, 128), (8, 64)


class Arguments(NamedTuple):
    """What the kernel takes: a `ShortCall` in float32 with whole biases and masks.

    Only the first axis of a bias or mask (problems, heads, queries, keys) may be 1; `seed` is there
    where weights are dropped.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None
    mask: Tensor | None
    gate: Tensor | None
    offsets: Tensor | None
    seed: Tensor | None
    scale: float
    dropout: float


TENSORS = Arguments._fields.index("scale")
INPUTS = schema_of(Arguments)
RESULTS = "Tensor, Tensor, Tensor, Tensor, Tensor"  # gradients of q, k, v, bias and gate


def run(call: ShortCall) -> Tensor:
    """Brings the arguments to the kernel's form."""
    q, k, v, gate, offsets = call.q, call.k, call.v, call.head_gate, call.offsets
    if q.dtype != torch.float32:
        q, k, v = q.float(), k.float(), v.float()
        gate = None if gate is None else gate.float()
    bias = None if call.bias is None else _whole(call, call.bias.float())
    mask = None if call.mask is None else _whole(call, call.mask)
    seed = torch.randint(2**63 - 1, (1,)) if call.dropout else None
    offsets = None if offsets is None else offsets.long()
    arguments = Arguments(q, k, v, bias, mask, gate, offsets, seed, call.scale, call.dropout)
    out = forward(*arguments) if torch.compiler.is_compiling() else attend(*arguments)
    return out if out.dtype == call.q.dtype else out.to(call.q.dtype)


def refuses(call: ShortCall) -> str | None:
    """It takes all but float64 on a CPU with a C compiler, to 128 tokens and 64 channels a head."""
    if call.q.device.type != "cpu":
        return f"the tensors are on {call.q.device.type}"
    if call.q.dtype == torch.float64:
        return "it computes in float32, the tensors are float64"
    return call.misfit(TOKENS, CHANNELS) or native.missing()


def reluctant(call: ShortCall) -> str | None:
    """It leaves exports to torch's own operators, which load without this package."""
    return call.exported()


def _whole(call: ShortCall, x: Tensor) -> Tensor:
    """A bias or mask with all axes but that of the problems."""
    queries, keys = call.q.shape[2], call.k.shape[2]
    if call.offsets is not None:
        queries = keys = TOKENS[1] if call.longest is None else call.longest
    return x.expand(-1, call.q.shape[1], queries, keys)


# ---- the operators ----


@torch.library.custom_op(
    "core_attn::short_attention",
    mutates_args=(),
    device_types="cpu",
    schema=f"({INPUTS}) -> Tensor",
)
def forward(*inputs):
    """Attention of q, k, v (problems, heads, tokens, dim), or packed (1, heads, total, dim)."""
    x = Arguments(*inputs)
    out = _like(x.q, x.v)
    x = x._replace(q=_with_rows(x.q), k=_with_rows(x.k), v=_with_rows(x.v))
    call = _call(x)
    call.out = _tokens(out)
    native.solve(call, 0)
    return out


@torch.library.custom_op(
    "core_attn::short_attention_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor grad, {INPUTS}, bool with_bias) -> ({RESULTS})",
)
def backward(grad, *inputs):
    """Gradients of q, k, v, bias (empty unless `with_bias`) and gate (empty without one)."""
    *inputs, with_bias = inputs
    x = Arguments(*inputs)
    results = _gradients(x, with_bias)
    grad, q, k, v = map(_with_rows, (grad, x.q, x.k, x.v))
    x = x._replace(q=q, k=k, v=v)
    call = _call(x)
    call.grad = _tokens(grad)
    _set_gradients(call, results)
    native.solve(call, 1)
    return results


@torch.library.custom_op(
    "core_attn::short_attention_twice",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor tq, Tensor tk, Tensor tv, Tensor? tbias, Tensor? tgate, Tensor grad, "
    f"{INPUTS}, bool with_bias) -> (Tensor, {RESULTS})",
)
def twice_backward(tq, tk, tv, tbias, tgate, grad, *inputs):
    """Gradients of the arguments of `backward`, grad to gate, given those of its results."""
    *inputs, with_bias = inputs
    x = Arguments(*inputs)
    dgrad, results = _like(grad, x.v), _gradients(x, with_bias)
    tq, tk, tv, grad, q, k, v = map(_with_rows, (tq, tk, tv, grad, x.q, x.k, x.v))
    call = _call(x._replace(q=q, k=k, v=v))
    call.tq, call.tk, call.tv = _tokens(tq), _tokens(tk), _tokens(tv)
    _set_optional(call, tbias=tbias, tgate=tgate)
    call.grad, call.dgrad = _tokens(grad), _tokens(dgrad)
    _set_gradients(call, results)
    native.solve(call, 2)
    return dgrad, *results


@forward.register_fake
def _(*inputs):
    x = Arguments(*inputs)
    return _like(x.q, x.v)


@backward.register_fake
def _(grad, *inputs):
    *inputs, with_bias = inputs
    return _gradients(Arguments(*inputs), with_bias)


@twice_backward.register_fake
def _(tq, tk, tv, tbias, tgate, grad, *inputs):
    *inputs, with_bias = inputs
    x = Arguments(*inputs)
    return _like(grad, x.v), *_gradients(x, with_bias)


def _save_forward(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:TENSORS])
    ctx.numbers = inputs[TENSORS:]


def _forward_backward(ctx, grad):
    with_bias = ctx.needs_input_grad[Arguments._fields.index("bias")]
    found = _Backward.apply(grad, *ctx.saved_tensors, *ctx.numbers, with_bias)
    return _by_name(found)


def _save_backward(ctx, inputs, output):
    ctx.save_for_backward(*inputs[: TENSORS + 1])
    ctx.numbers = inputs[TENSORS + 1 : -1]


def _backward_backward(ctx, tq, tk, tv, tbias, tgate):
    with_bias = ctx.needs_input_grad[1 + Arguments._fields.index("bias")]
    dgrad, *found = twice_backward(
        tq, tk, tv, _if_any(tbias), _if_any(tgate), *ctx.saved_tensors, *ctx.numbers, with_bias
    )
    return dgrad, *_by_name(found), None


def _by_name(found: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    dq, dk, dv, dbias, dgate = found
    return gradients_of(Arguments, q=dq, k=dk, v=dv, bias=_if_any(dbias), gate=_if_any(dgate))


def _if_any(x: Tensor) -> Tensor | None:
    return x if x.numel() else None


forward.register_autograd(_forward_backward, setup_context=_save_forward)
backward.register_autograd(_backward_backward, setup_context=_save_backward)
for _operator in (forward, backward, twice_backward):
    _operator.register_autocast("cpu", torch.float32)


class _Forward(torch.autograd.Function):
    """`forward` for eager calls, where a registered derivative costs several times as much."""

    @staticmethod
    def forward(ctx, *inputs):
        _save_forward(ctx, inputs, None)
        return forward(*inputs)

    @staticmethod
    def backward(ctx, *grads):
        return _forward_backward(ctx, *grads)


attend = _Forward.apply


class _Backward(torch.autograd.Function):
    """`backward` likewise."""

    @staticmethod
    def forward(ctx, *inputs):
        _save_backward(ctx, inputs, None)
        return backward(*inputs)

    @staticmethod
    def backward(ctx, *grads):
        return _backward_backward(ctx, *grads)


# ---- describing tensors to the kernel ----


def _like(x: Tensor, values: Tensor) -> Tensor:
    """Memory laid out like x, as wide as `values`: heads inside of tokens after a head split."""
    problems, heads, tokens, _ = x.shape
    if x.stride(1) < x.stride(2):
        return x.new_empty(problems, tokens, heads, values.shape[-1]).transpose(1, 2)
    return x.new_empty(problems, heads, tokens, values.shape[-1])


def _gradients(x: Arguments, with_bias: bool) -> tuple[Tensor, ...]:
    """Memory for the gradients of q, k, v, bias and gate."""
    # Packed problems leave parts of a bias untouched, and an empty one its gate.
    new = x.q.new_empty if x.offsets is None else x.q.new_zeros
    dbias = new(x.bias.shape) if with_bias and x.bias is not None else x.q.new_empty(0)
    dgate = x.q.new_empty(0) if x.gate is None else new(x.gate.shape)
    return _like(x.q, x.q), _like(x.k, x.k), _like(x.v, x.v), dbias, dgate


def _with_rows(x: Tensor) -> Tensor:
    """x with contiguous rows, copied only where they are not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _call(x: Arguments) -> native.Call:
    _, heads, queries, dim = x.q.shape
    call = native.Call(scale=x.scale, heads=heads, dim=dim, v_dim=x.v.shape[-1])
    if x.seed is not None:
        call.seed, call.dropout = x.seed.data_ptr(), x.dropout
    if x.offsets is None:
        call.problems, call.queries, call.keys = x.q.shape[0], queries, x.k.shape[2]
    else:
        call.problems, call.offsets = x.offsets.shape[0] - 1, x.offsets.data_ptr()
        planes = [y.shape[2] for y in (x.bias, x.mask) if y is not None]
        call.total, call.reach = queries, min([TOKENS[1], *planes])
    call.q, call.k, call.v = _tokens(x.q), _tokens(x.k), _tokens(x.v)
    _set_optional(call, bias=x.bias, mask=x.mask, gate=x.gate)
    return call


def _set_gradients(call: native.Call, results: Sequence[Tensor]) -> None:
    dq, dk, dv, dbias, dgate = results
    call.dq, call.dk, call.dv = _tokens(dq), _tokens(dk), _tokens(dv)
    _set_optional(call, dbias=_if_any(dbias), dgate=_if_any(dgate))


def _tokens(x: Tensor) -> native.View:
    problem, head, token, channel = x.stride()
    return native.View(x.data_ptr(), problem if x.shape[0] > 1 else 0, head, token, channel)


def _set_optional(call: native.Call, **tensors: Tensor | None) -> None:
    """Describes biases, masks and gates; an absent one has a null pointer, an axis of 1 stands."""
    for name, x in tensors.items():
        if x is None:
            continue
        problem, head, *row = x.stride()
        if x.shape[2] == 1 and x.dim() == 3:
            row = [0]
        setattr(call, name, native.View(x.data_ptr(), problem if x.shape[0] > 1 else 0, head, *row))
