"""The Triton backend of `short_attention`: what it refuses, and the operators that torch sees."""

from typing import Any

import torch
from torch import Tensor

from .._eager import short_way, short_way_with_gradient
from .._schema import gradients_of, schema_of
from .._triton_host import arch_of, interpreted, refuses_device, rows_like
from .call import ShortCall
from .triton_call import TENSORS, Inputs
from .triton_tiles import entry_for

SHORTER = 32  # 1.4 times SDPA's speed at 20 tokens of 16 channels, 0.6 times at 49 of 32
INPUTS = schema_of(Inputs)


def run(call: ShortCall) -> Tensor:
    """Packed problems lie one after the other in the tokens of one batch entry."""
    gate, seed = call.head_gate, None
    if call.dropout > 0:
        seed = torch.randint(2**62, (1,), device=call.q.device)
    longest = call.longest or 0  # it is known, or the call would have been refused
    return attend(
        call.q, call.k, call.v, call.bias, call.mask, call.offsets, gate, seed, longest,
        call.scale, call.dropout,
    )  # fmt: skip


def refuses(call: ShortCall) -> str | None:
    """It takes 16- and 32-bit floats on a GPU, 2 to 128 tokens and 8 to 64 channels a head."""
    if (reason := refuses_device(call.q)) is not None:
        return reason
    if call.longest is None:
        return "the tokens of the longest problem are not known while tracing"
    if (reason := call.misfit((2, 128), (8, 64))) is not None:
        return reason
    q, v, bias, longest = call.q, call.v, call.bias, call.longest
    dim = max(q.shape[-1], v.shape[-1])
    if entry_for(arch_of(q.device), q.element_size(), longest, dim) is None:
        return f"{longest} tokens of {dim} channels in {q.dtype} do not fit a tile of this GPU"
    if bias is not None and bias.dtype == torch.float64:
        return "the kernels have no float64"
    return None


def reluctant(call: ShortCall) -> str | None:
    """It leaves exports, CPUs under the interpreter, and what SDPA does faster to others."""
    if (reason := interpreted(call.q) or call.exported()) is not None:
        return reason
    if call.offsets is None and call.head_gate is None and (call.longest or 0) > SHORTER:
        return f"beyond {SHORTER} tokens SDPA's kernels measured faster on an H200"
    return None


@torch.library.custom_op(
    "core_attn::short_attention_triton", mutates_args=(), schema=f"({INPUTS}) -> Tensor"
)
def _forward(*inputs: Any) -> Tensor:
    from .triton_kernels import plan_forward

    launch, out = plan_forward(Inputs(*inputs), arch_of(inputs[0].device))
    launch()
    return out


@_forward.register_fake
def _(*inputs: Any) -> Tensor:
    x = Inputs(*inputs)
    return rows_like(x.q, x.q.shape[1], x.v.shape[3])


@torch.library.custom_op(
    "core_attn::short_attention_triton_backward",
    mutates_args=(),
    schema=f"(Tensor dout, bool with_bias, {INPUTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(dout: Tensor, with_bias: bool, *inputs: Any) -> tuple[Tensor, ...]:
    """Returns the gradients of q, k, v, bias and gate; empty for those that are not there."""
    from .triton_kernels import plan_backward

    x = Inputs(*inputs)
    launch, (dq, dk, dv, dbias, dgate) = plan_backward(dout, x, with_bias, arch_of(dout.device))
    launch()
    if dbias is None or x.bias is None:
        dbias = dq.new_empty(0)
    else:
        dbias = dbias.sum_to_size(x.bias.shape).to(x.bias.dtype)
    if x.gate is None:
        return dq, dk, dv, dbias, dq.new_empty(0)
    if x.gate.shape != dgate.shape:
        dgate = _per_problem(dgate, x.offsets)
    return dq, dk, dv, dbias, dgate.to(x.gate.dtype)


def _per_problem(per_query: Tensor, offsets: Tensor | None) -> Tensor:
    """Sums (problems, heads, queries), or packed (1, heads, total), over each problem's queries."""
    if offsets is None:
        return per_query.sum(2, keepdim=True)
    problems, total = offsets.shape[0] - 1, per_query.shape[2]
    place = torch.arange(total, device=per_query.device)
    problem = torch.searchsorted(offsets, place, right=True) - 1
    summed = per_query.new_zeros(problems, per_query.shape[1])
    return summed.index_add_(0, problem, per_query[0].transpose(0, 1))[..., None]


@_backward.register_fake
def _(dout: Tensor, with_bias: bool, *inputs: Any) -> tuple[Tensor, ...]:
    x = Inputs(*inputs)
    dq, dk, dv = (rows_like(y, y.shape[1], y.shape[3]) for y in (x.q, x.k, x.v))
    dbias = dq.new_empty(0)
    if with_bias and x.bias is not None:
        dbias = x.bias.new_empty(x.bias.shape)
    return dq, dk, dv, dbias, dq.new_empty(0) if x.gate is None else x.gate.new_empty(x.gate.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:TENSORS])
    ctx.rest = inputs[TENSORS:]


def _differentiate(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    with_bias = ctx.needs_input_grad[Inputs._fields.index("bias")]
    x = Inputs(*ctx.saved_tensors, *ctx.rest)
    # Without dropout the definition is derived instead, and nothing but zeros arrives here then.
    with torch.set_grad_enabled(torch.is_grad_enabled() and x.dropout > 0):
        dq, dk, dv, dbias, dgate = differentiate(dout, with_bias, *x)
    dbias, dgate = dbias if with_bias else None, None if x.gate is None else dgate
    return gradients_of(Inputs, q=dq, k=dk, v=dv, bias=dbias, gate=dgate)


def _refuse_second_derivative(ctx: Any, *_: Any) -> None:
    raise NotImplementedError(
        "the triton backend of short_attention has no second derivatives with dropout or compiled; "
        'compute the forward pass under core_attn.use_backend("reference"), which has them'
    )


attend = short_way_with_gradient(_forward, _differentiate, _save)
_backward.register_autograd(_refuse_second_derivative)
differentiate = short_way(_backward)
