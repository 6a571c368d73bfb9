"""Attention over lists on a GPU: the Triton kernels as operators of torch."""

from typing import Any

import torch
from torch import Tensor

from .._eager import short_way, short_way_with_gradient
from .._normal import one_batch
from .._recompute import twice_differentiable
from .._schema import gradients_of, schema_of
from .._triton_host import arch_of, interpreted, refuses_device
from . import reference
from .cpu import reluctant as exported
from .triton_call import FLOATS, TENSORS, Inputs
from .triton_tiles import MAX_DIM

INPUTS = schema_of(Inputs)
LISTS = ("q", "k", "v", "bias", "memory_k", "memory_v")


def run(call: Any) -> Tensor:
    """Brings a call of `gather_attention` or `cluster_attention` to the kernels' form."""
    keys = one_batch(call.keys)
    if call.key_mask is not None:
        seen = one_batch(call.key_mask, 1)[:, None].expand(*keys.shape[:2], -1)
        kept = seen.gather(2, keys.long().clamp(min=0).flatten(2)).view(keys.shape)
        keys = keys.masked_fill(~kept, -1)
    members = 1 if call.queries is None else call.queries.shape[-1]
    bias = extra_bias = None
    if call.bias is not None:
        full = (*call.keys.shape[:-1], members, call.memory + call.keys.shape[-1])
        bias = _five_axes(call.bias, full)
        if call.memory:
            last = bias.expand(*bias.shape[:-1], full[-1])
            extra_bias, bias = last.split((call.memory, call.keys.shape[-1]), -1)
    memory_k, memory_v = (None if x is None else x[None] for x in (call.memory_k, call.memory_v))
    q, k, v = (one_batch(x) for x in (call.q, call.k, call.v))
    queries = None if call.queries is None else one_batch(call.queries)
    out = attend(
        Inputs(
            q=q, k=k, v=v, queries=queries, keys=keys, ranked=None, bias=bias, extra_k=memory_k,
            extra_v=memory_v, extra_bias=extra_bias, added=None, seed=seed_for(call), window=None,
            masked=True, by_member=queries is not None, causal=call.causal,
            self_bias=call.self_bias, scale=call.scale, dropout=call.dropout,
        )
    )  # fmt: skip
    out = out.unflatten(2, (-1, members)).reshape(*call.keys.shape[:-1], members, -1)
    if call.dropout:  # no second run would drop the same weights
        return out
    return twice_differentiable(out, "gather_attention", reference.run, call, LISTS)


def _five_axes(bias: Tensor, full: tuple[int, ...]) -> Tensor:
    """A bias that broadcasts to (*batch, heads, groups, members, slots), with one batch axis."""
    bias = bias[(None,) * (len(full) - bias.dim())]
    if len(full) != 5 and any(n != 1 for n in bias.shape[:-4]):
        bias = bias.expand(*full[:-4], *bias.shape[-4:])
    return one_batch(bias, 4) if bias.dim() > 5 else bias[(None,) * (5 - bias.dim())]


def seed_for(call: Any) -> Tensor | None:
    """What Philox counts from, where weights are dropped."""
    return torch.randint(2**62, (1,), device=call.q.device) if call.dropout > 0 else None


def refuses(call: Any) -> str | None:
    """It takes lists and clusters without relative tables, in 16- and 32-bit floats on a GPU."""
    for name in ("relative_k", "relative_v"):
        if getattr(call, name) is not None:
            return f"the kernels have no {name}"
    return misfit(call, LISTS)


def misfit(call: Any, floats: tuple[str, ...]) -> str | None:
    """Why the kernels cannot take the tensors of a call, or None."""
    if (reason := refuses_device(call.q)) is not None:
        return reason
    given = [x for name in floats if (x := getattr(call, name)) is not None]
    if any(x.dtype == torch.float64 for x in given):
        return "the kernels have no float64"
    if any(x.numel() == 0 for x in (call.q, call.k, call.v)):
        return "there are no queries or no keys"
    widest, allowed = max(call.q.shape[-1], call.v.shape[-1]), MAX_DIM[call.q.element_size()]
    if widest > allowed:
        return f"heads of {call.q.dtype} are supported up to {allowed} dimensions"
    if torch.are_deterministic_algorithms_enabled() and any(x.requires_grad for x in given):
        return "gradients of keys and values are summed by atomic additions, in no fixed order"
    return None


def reluctant(call: Any) -> str | None:
    """It leaves exports, and CPUs under the interpreter, to others."""
    return interpreted(call.q) or exported(call)


def attend(x: Inputs) -> Tensor:
    """The kernels, differentiable once."""
    return lists(*x)[0]


@torch.library.custom_op(
    "core_attn::lists_triton", mutates_args=(), schema=f"({INPUTS}) -> (Tensor, Tensor, Tensor)"
)
def _forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the outputs, those before `added` (empty without) and the log-normalizers."""
    from .triton_plans import plan_forward

    launch, outputs = plan_forward(Inputs(*inputs), arch_of(inputs[0].device))
    launch()
    return outputs


@_forward.register_fake
def _(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    x = Inputs(*inputs)
    out, soft = x.output(), x.q.new_empty(0) if x.added is None else x.output()
    return out, soft, x.q.new_empty((*x.plane[:3], x.members), dtype=torch.float32)


@torch.library.custom_op(
    "core_attn::lists_triton_backward",
    mutates_args=(),
    schema=f"(Tensor dout, Tensor soft, Tensor lse, bool with_bias, {INPUTS}) -> "
    f"({', '.join(['Tensor'] * len(FLOATS))})",
)
def _backward(
    dout: Tensor, soft: Tensor, lse: Tensor, with_bias: bool, *inputs: Any
) -> tuple[Tensor, ...]:
    """Returns the gradients of all floats, empty for those that are not there."""
    from .triton_plans import plan_backward

    x = Inputs(*inputs)
    launch, found = plan_backward(dout, soft, lse, x, with_bias, arch_of(dout.device))
    launch()
    pairs = ((getattr(found, name), getattr(x, name)) for name in FLOATS)
    return tuple(
        lse.new_empty(0) if of is None or at is None else of.sum_to_size(at.shape).to(at.dtype)
        for of, at in pairs
    )


@_backward.register_fake
def _(dout: Tensor, soft: Tensor, lse: Tensor, with_bias: bool, *inputs: Any) -> tuple[Tensor, ...]:
    x = Inputs(*inputs)
    given = (getattr(x, name) if name != "bias" or with_bias else None for name in FLOATS)
    return tuple(lse.new_empty(0) if x is None else x.new_empty(x.shape) for x in given)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    out, soft, lse = output
    ctx.mark_non_differentiable(soft, lse)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(out if soft.numel() == 0 else soft, lse, *inputs[:TENSORS])
    ctx.rest = inputs[TENSORS:]


def _differentiate(ctx: Any, dout: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if dout is None:  # the definition has taken its place
        return gradients_of(Inputs)
    soft, lse, *tensors = ctx.saved_tensors
    dropped = ctx.rest[-1] > 0
    # Without dropout the definition is derived instead, and nothing but zeros arrives here then.
    with torch.set_grad_enabled(torch.is_grad_enabled() and dropped):
        found = differentiate(
            dout, soft, lse, ctx.needs_input_grad[Inputs._fields.index("bias")], *tensors, *ctx.rest
        )
    pairs = zip(FLOATS, found, strict=True)
    return gradients_of(Inputs, **{name: x for name, x in pairs if x.numel()})


def _refuse_second_derivative(ctx: Any, *_: Any) -> None:
    raise NotImplementedError(
        "the triton backend has no second derivatives with dropout or compiled; compute the "
        'forward pass under core_attn.use_backend("reference"), which has them'
    )


lists = short_way_with_gradient(_forward, _differentiate, _save)
_backward.register_autograd(_refuse_second_derivative)
differentiate = short_way(_backward)
