"""short_attention on a CPU: the C kernel as operators of torch, differentiable twice."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import native
from .call import ShortCall


def run(call: ShortCall) -> Tensor:
    """Brings the arguments to the kernel's form: float32, one batch axis, full bias and mask."""
    q, k, v, gate, offsets = call.q, call.k, call.v, call.head_gate, call.offsets
    if q.dtype != torch.float32:
        q, k, v = q.float(), k.float(), v.float()
        gate = None if gate is None else gate.float()
    if offsets is not None:
        offsets = offsets.long().contiguous()
    else:
        if gate is not None:
            per_query = gate.dim() == call.q.dim() - 1
            gate = gate.transpose(-1, -2) if per_query else gate
            gate = gate.reshape(-1, *call.q.shape[-3 : -1 if per_query else -2])
        if call.q.dim() != 4:
            q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))
    bias = None if call.bias is None else _over_problems(call, call.bias.float())
    mask = _over_problems(call, call.mask)
    seed = torch.randint(2**63 - 1, (1,)) if call.dropout else None
    arguments = (q, k, v, bias, mask, gate, offsets, seed, call.scale, call.dropout)
    out = forward(*arguments) if torch.compiler.is_compiling() else attend(*arguments)
    if call.q.dim() != out.dim():
        out = out.reshape(*call.q.shape[:-1], v.shape[-1])
    return out if out.dtype == call.q.dtype else out.to(call.q.dtype)


def refuses(call: ShortCall) -> str | None:
    """It takes all but float64 on a CPU with a C compiler, to 128 tokens and 64 channels a head."""
    q, k, v = call.q, call.k, call.v
    if q.device.type != "cpu":
        return f"the tensors are on {q.device.type}"
    if q.dtype == torch.float64:
        return "it computes in float32, the tensors are float64"
    if call.under_torch_func:
        return "torch.func cannot transform it"
    for dim in (q.shape[-1], v.shape[-1]):
        if not 8 <= dim <= 64:
            return f"a head dim is {dim}, not within 8 to 64"
    packed = call.offsets is not None
    for tokens in (call.longest,) if packed else (q.shape[-2], k.shape[-2]):
        if tokens is not None and not 2 <= tokens <= 128:
            return f"a problem has {tokens} tokens, not within 2 to 128"
    if q.numel() == 0:
        return "there are no problems"
    return native.missing()


def _over_problems(call: ShortCall, x: Tensor | None) -> Tensor | None:
    """A bias or mask as (problems, heads, queries, keys), 1 for problems where all share it."""
    if x is None:
        return None
    if call.offsets is not None:
        batch, queries = x.shape[:-3], call.longest or 0
        shape = (call.q.shape[-2], queries, queries)
    else:
        batch = call.q.shape[:-3]
        shape = (call.q.shape[-3], call.q.shape[-2], call.k.shape[-2])
    x = x[(None,) * (3 - x.dim())]
    if x.shape[:-3].numel() == 1:
        return x.reshape(x.shape[-3:]).expand(1, *shape)
    return x.expand(*batch, -1, -1, -1).reshape(-1, *x.shape[-3:]).expand(-1, *shape)


# ---- the operators ----


@torch.library.custom_op("core_attn::short_attention", mutates_args=(), device_types="cpu")
def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    gate: Tensor | None,
    offsets: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attention of q, k, v (problems, heads, tokens, dim), or packed (total, heads, dim)."""
    out = _like(q, v)
    q, k, v = map(_with_rows, (q, k, v))
    call = _call(q, k, v, bias, mask, gate, offsets, seed, scale, dropout)
    call.out = _tokens(out)
    native.solve(call, 0)
    return out


@torch.library.custom_op("core_attn::short_attention_backward", mutates_args=(), device_types="cpu")
def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    gate: Tensor | None,
    offsets: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout: float,
    with_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, bias (empty unless `with_bias`) and gate (empty without one)."""
    results = _gradients(q, k, v, bias, gate, offsets, with_bias)
    grad, q, k, v = map(_with_rows, (grad, q, k, v))
    call = _call(q, k, v, bias, mask, gate, offsets, seed, scale, dropout)
    call.grad = _tokens(grad)
    _set_gradients(call, results, q, offsets)
    native.solve(call, 1)
    return results


@torch.library.custom_op("core_attn::short_attention_twice", mutates_args=(), device_types="cpu")
def twice_backward(
    tq: Tensor,
    tk: Tensor,
    tv: Tensor,
    tbias: Tensor | None,
    tgate: Tensor | None,
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    gate: Tensor | None,
    offsets: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout: float,
    with_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the arguments of `backward`, grad to gate, given those of its results."""
    dgrad = _like(grad, v)
    results = _gradients(q, k, v, bias, gate, offsets, with_bias)
    tq, tk, tv, grad, q, k, v = map(_with_rows, (tq, tk, tv, grad, q, k, v))
    call = _call(q, k, v, bias, mask, gate, offsets, seed, scale, dropout)
    call.tq, call.tk, call.tv = _tokens(tq), _tokens(tk), _tokens(tv)
    _set_optional(call, q, offsets, tbias=tbias, tgate=tgate)
    call.grad, call.dgrad = _tokens(grad), _tokens(dgrad)
    _set_gradients(call, results, q, offsets)
    native.solve(call, 2)
    return dgrad, *results


@forward.register_fake
def _(q, k, v, bias, mask, gate, offsets, seed, scale, dropout):
    return _like(q, v)


@backward.register_fake
def _(grad, q, k, v, bias, mask, gate, offsets, seed, scale, dropout, with_bias):
    return _gradients(q, k, v, bias, gate, offsets, with_bias)


@twice_backward.register_fake
def _(
    tq,
    tk,
    tv,
    tbias,
    tgate,
    grad,
    q,
    k,
    v,
    bias,
    mask,
    gate,
    offsets,
    seed,
    scale,
    dropout,
    with_bias,
):
    return _like(grad, v), *_gradients(q, k, v, bias, gate, offsets, with_bias)


def _save_forward(ctx, inputs, output):
    *tensors, ctx.scale, ctx.dropout = inputs
    ctx.save_for_backward(*tensors)


def _forward_backward(ctx, grad):
    with_bias = ctx.needs_input_grad[3]
    dq, dk, dv, dbias, dgate = _Backward.apply(
        grad, *ctx.saved_tensors, ctx.scale, ctx.dropout, with_bias
    )
    return dq, dk, dv, _if_any(dbias), None, _if_any(dgate), *(None,) * 4


def _save_backward(ctx, inputs, output):
    *tensors, ctx.scale, ctx.dropout, ctx.with_bias = inputs
    ctx.save_for_backward(*tensors)


def _backward_backward(ctx, tq, tk, tv, tbias, tgate):
    dgrad, dq, dk, dv, dbias, dgate = twice_backward(
        tq, tk, tv, _if_any(tbias), _if_any(tgate), *ctx.saved_tensors, ctx.scale,
        ctx.dropout, ctx.needs_input_grad[4],
    )  # fmt: skip
    return dgrad, dq, dk, dv, _if_any(dbias), None, _if_any(dgate), *(None,) * 5


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
    if x.dim() == 4 and x.stride(1) < x.stride(2):
        problems, heads, tokens, _ = x.shape
        return x.new_empty(problems, tokens, heads, values.shape[-1]).transpose(1, 2)
    return x.new_empty(*x.shape[:-1], values.shape[-1])


def _gradients(q, k, v, bias, gate, offsets, with_bias):
    """Memory for the gradients of q, k, v, bias and gate."""
    # Packed problems leave parts of a bias untouched, and an empty one its gate.
    new = q.new_empty if offsets is None else q.new_zeros
    dbias = new(bias.shape) if with_bias else q.new_empty(0)
    dgate = q.new_empty(0) if gate is None else new(gate.shape)
    return _like(q, q), _like(k, k), _like(v, v), dbias, dgate


def _with_rows(x: Tensor) -> Tensor:
    """x with contiguous rows, copied only where they are not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _call(q, k, v, bias, mask, gate, offsets, seed, scale, dropout) -> native.Call:
    call = native.Call(scale=scale, heads=q.shape[1], dim=q.shape[-1], v_dim=v.shape[-1])
    if seed is not None:
        call.seed, call.dropout = seed.data_ptr(), dropout
    if offsets is None:
        call.problems, call.queries, call.keys = q.shape[0], q.shape[2], k.shape[2]
    else:
        call.problems, call.offsets = offsets.shape[0] - 1, offsets.data_ptr()
    call.q, call.k, call.v = _tokens(q), _tokens(k), _tokens(v)
    _set_optional(call, q, offsets, bias=bias, mask=mask, gate=gate)
    return call


def _set_gradients(call: native.Call, results: Sequence[Tensor], q, offsets) -> None:
    dq, dk, dv, dbias, dgate = results
    call.dq, call.dk, call.dv = _tokens(dq), _tokens(dk), _tokens(dv)
    _set_optional(call, q, offsets, dbias=_if_any(dbias), dgate=_if_any(dgate))


def _tokens(x: Tensor) -> native.View:
    if x.dim() == 4:
        return native.View(x.data_ptr(), *x.stride())
    token, head, channel = x.stride()
    return native.View(x.data_ptr(), 0, head, token, channel)


def _set_optional(call: native.Call, q: Tensor, offsets: Tensor | None, **tensors) -> None:
    """Describes biases, masks and gates, as their names say; an absent one has a null pointer."""
    for name, x in tensors.items():
        if x is None:
            continue
        if not name.endswith("gate"):
            problem, head, row, column = x.stride()
            view = native.View(x.data_ptr(), problem if x.shape[0] > 1 else 0, head, row, column)
        elif offsets is not None and x.shape[0] == q.shape[0]:  # one factor per token
            view = native.View(x.data_ptr(), 0, x.stride(1), x.stride(0), 0)
        else:  # per problem and head, or per query, too
            view = native.View(x.data_ptr(), *x.stride())
        setattr(call, name, view)
