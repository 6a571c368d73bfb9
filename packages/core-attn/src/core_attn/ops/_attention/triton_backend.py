"""The Triton backend of `attention`: what it refuses, and the operators that torch sees."""

from typing import Any

import torch
from torch import Tensor

from .._dispatch import offer_of
from .._eager import short_way, short_way_with_gradient
from .._recompute import twice_differentiable
from .._schema import gradients_of, schema_of
from .._triton_host import arch_of, interpreted, refuses_device, rows_like
from . import reference
from .call import FLOATS, AttentionCall
from .triton_call import TENSORS, Inputs

MAX_DIM = {torch.bfloat16: 256, torch.float16: 256, torch.float32: 64}
FEW_SCORES = 1 << 26  # with a bias SDPA took a quarter of the time at 2^24, as much at 2^28
INPUTS = schema_of(Inputs)


def _run(call: AttentionCall) -> Tensor:
    out, _ = run_with_lse(call)
    if call.dropout:  # no second run would drop the same weights
        return out
    return twice_differentiable(out, "attention", reference.run, call, FLOATS)


def run_with_lse(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """The output, and the logarithms (base 2) of the normalisers, inf where nothing is seen.

    The second one has no gradient with a gate.
    """
    window, seed = call.window, None
    if call.causal:
        window = (window[0] if window else call.k.shape[2], 0)
    if call.dropout > 0:
        seed = torch.randint(2**62, (1,), device=call.q.device)
    out, _, lse = attend(
        call.q, call.k, call.v, call.bias, call.mask, call.lengths, call.head_gate, seed,
        call.k_head_map, call.v_head_map, window, call.scale, call.dropout,
    )  # fmt: skip
    return out, lse


def cannot(call: AttentionCall) -> str | None:
    """It takes 16- and 32-bit floats on a GPU, with heads for which tiles have been compiled."""
    if (reason := refuses_device(call.q)) is not None:
        return reason
    q, v, bias = call.q, call.v, call.bias
    if q.numel() == 0 or call.k.numel() == 0 or v.numel() == 0:
        return "there are no queries or no keys"
    if bias is not None and bias.dtype == torch.float64:
        return "the kernels have no float64"
    if max(q.shape[-1], v.shape[-1]) > MAX_DIM[q.dtype]:
        return f"heads of {q.dtype} are supported up to {MAX_DIM[q.dtype]} dimensions"
    return None


def _reluctant(call: AttentionCall) -> str | None:
    """It leaves to SDPA's kernels what they do: all keys or the earlier ones, heads in groups.

    Biases and masks, too, of problems that are done before Python has launched kernels of ours.
    """
    if (reason := interpreted(call.q)) is not None:
        return reason
    q, k, v = call.q, call.k, call.v
    square = q.shape[2] == k.shape[2] or q.shape[2] == 1
    few = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] < FEW_SCORES
    if few and not call.causal:
        call = call._replace(bias=None, mask=None)
    seen = call._replace(causal=False).is_plain and (square or not call.causal)
    heads = call.is_grouped or (call.k_head_map is None and call.v_head_map is None)
    if seen and heads and q.shape[3] == v.shape[3] and call.scale > 0:
        return "SDPA has kernels for this, which measured faster on an H200"
    return None


offer = offer_of(_run, cannot, _reluctant)


@torch.library.custom_op(
    "core_attn::attention_triton",
    mutates_args=(),
    schema=f"({INPUTS}) -> (Tensor, Tensor, Tensor)",
)
def _forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gated output, the heads before the gate (empty without one), log-normalisers."""
    from .triton_forward import plan

    launches, outputs = plan(Inputs(*inputs), arch_of(inputs[0].device))
    for launch in launches:
        launch()
    return outputs


@_forward.register_fake
def _(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    x = Inputs(*inputs)
    heads, dim = x.q.shape[1], x.v.shape[3]
    ungated = x.q.new_empty(0) if x.gate is None else rows_like(x.q, heads, dim)
    return rows_like(x.q, heads, dim), ungated, x.q.new_empty(x.q.shape[:3], dtype=torch.float32)


@torch.library.custom_op(
    "core_attn::attention_triton_backward",
    mutates_args=(),
    schema="(Tensor dout, Tensor? dlse, Tensor heads, Tensor lse, bool with_bias, "
    f"{INPUTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(
    dout: Tensor, dlse: Tensor | None, heads: Tensor, lse: Tensor, with_bias: bool, *inputs: Any
) -> tuple[Tensor, ...]:
    """Returns the gradients of q, k, v, bias and gate; empty for those that are not there."""
    from .triton_backward import plan

    x = Inputs(*inputs)
    launches, (dq, dk, dv, dbias, dgate) = plan(
        dout, dlse, heads, lse, x, with_bias, arch_of(dout.device)
    )
    for launch in launches:
        launch()
    if x.group == 1:
        dk, dv = _sum_heads(dk, x.k, x.k_map), _sum_heads(dv, x.v, x.v_map)
    if dbias is None or x.bias is None:
        dbias = dq.new_empty(0)
    else:
        dbias = dbias.sum_to_size(x.bias.shape).to(x.bias.dtype).contiguous()
    if x.gate is None:
        return dq, dk, dv, dbias, dq.new_empty(0)
    dgate = dgate.sum(2, keepdim=True) if x.gate.shape[2] < dgate.shape[2] else dgate
    return dq, dk, dv, dbias, dgate.to(x.gate.dtype)


@_backward.register_fake
def _(
    dout: Tensor, dlse: Tensor | None, heads: Tensor, lse: Tensor, with_bias: bool, *inputs: Any
) -> tuple[Tensor, ...]:
    x = Inputs(*inputs)
    dq, dk, dv = (
        rows_like(y, y.shape[1], y.shape[3]) if head_map is None else y.new_empty(y.shape)
        for y, head_map in ((x.q, None), (x.k, x.k_map), (x.v, x.v_map))
    )
    dbias = x.q.new_empty(0)
    if with_bias and x.bias is not None:
        dbias = x.bias.new_empty(x.bias.shape)
    return dq, dk, dv, dbias, x.q.new_empty(0) if x.gate is None else x.gate.new_empty(x.gate.shape)


def _sum_heads(per_query_head: Tensor, stored: Tensor, head_map: list[int] | None) -> Tensor:
    """Adds the gradients of all query heads that read one stored head."""
    if head_map is None:
        return per_query_head
    index = torch.tensor(head_map, device=stored.device)
    summed = per_query_head.new_zeros(stored.shape)
    return summed.index_add_(1, index, per_query_head).to(stored.dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    out, heads, lse = output
    gated = Inputs(*inputs).gate is not None
    ctx.mark_non_differentiable(*([heads, lse] if gated else [heads]))
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(heads if gated else out, lse, *inputs[:TENSORS])
    ctx.rest = inputs[TENSORS:]


def _differentiate(
    ctx: Any, dout: Tensor | None, _: None, dlse: Tensor | None
) -> tuple[Tensor | None, ...]:
    with_bias = ctx.needs_input_grad[Inputs._fields.index("bias")]
    heads, lse, *tensors = ctx.saved_tensors
    x = Inputs(*tensors, *ctx.rest)
    if dout is None:
        dout = torch.zeros_like(heads)
    # Without dropout the definition is derived instead, and nothing but zeros arrives here then.
    with torch.set_grad_enabled(torch.is_grad_enabled() and x.dropout > 0):
        dq, dk, dv, dbias, dgate = differentiate(dout, dlse, heads, lse, with_bias, *x)
    dbias, dgate = dbias if with_bias else None, None if x.gate is None else dgate
    return gradients_of(Inputs, q=dq, k=dk, v=dv, bias=dbias, gate=dgate)


def _refuse_second_derivative(ctx: Any, *_: Any) -> None:
    raise NotImplementedError(
        "the triton backend of attention has no second derivatives with dropout or compiled; "
        'compute the forward pass under core_attn.use_backend("reference"), which has them'
    )


attend = short_way_with_gradient(_forward, _differentiate, _save)
_backward.register_autograd(_refuse_second_derivative)
differentiate = short_way(_backward)
