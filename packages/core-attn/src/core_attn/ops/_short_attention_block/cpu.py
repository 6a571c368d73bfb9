"""short_attention_block on a CPU: the C kernel as one node of the graph."""

from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from .._short_attention import cpu, native
from . import factored
from .call import BlockCall, Residual
from .composed import around

MAPS = ("weight", "bias", "values", "values_bias")


def run(call: BlockCall) -> Tensor:
    """Keeps the packed product and the sum before the norm if there will be a backward."""
    seed = torch.randint(2**63 - 1, (1,)) if call.dropout else None
    if missing := -call.x.shape[-1] % native.lanes():  # columns of zeros make whole vectors
        x, weight = (F.pad(x, (0, missing)) for x in (call.x, call.weight))
        call = call._replace(x=x, weight=weight)
    floats = (call.x, call.weight, call.bias, call.gain, call.shift)
    floats = [None if x is None else x.contiguous() for x in floats]
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in floats):
        return _Block.apply(call, seed, *floats)
    return _solved(_Form.of(call), False, seed, *floats)[0]


def refuses(call: BlockCall) -> str | None:
    """It takes eager float32 calls on a CPU whose width is whole vectors."""
    x, width = call.x, call.width
    if call.attend is not None:
        return "the heads are watched"
    if x.device.type != "cpu":
        return f"the tensors are on {x.device.type}"
    if any(y is not None and y.dtype != torch.float32 for y in (x, call.gain)):
        return "it computes in float32 only"
    if torch.compiler.is_compiling():
        return "it cannot be traced"
    if not 2 <= x.shape[-2] <= 128:
        return f"a problem has {x.shape[-2]} tokens, not within 2 to 128"
    if not 8 <= width // call.heads <= 64:
        return f"a head dim is {width // call.heads}, not within 8 to 64"
    if x.numel() == 0:
        return "there are no problems"
    if native.missing() is None and width % native.lanes():
        return f"the width {width} is not a multiple of {native.lanes()}"
    return native.missing()


class _Form(NamedTuple):
    """A call without its tensors, and how the kernel computes and keeps."""

    call: BlockCall
    width: int
    factored: bool
    stride: int

    @classmethod
    def of(cls, call: BlockCall) -> "_Form":
        pays = factored.pays(call, native.lanes())
        bare = call._replace(x=None, weight=None, bias=None, gain=None, shift=None)
        return cls(bare, call.width, pays, _stride(call, pays))


def _solved(form: _Form, keep: bool, seed, x, weight, bias, gain, shift):
    """The result, and what a backward needs beside the inputs."""
    shape = (*x.shape[:-1], form.width)
    out = x.new_empty(shape)
    packed = x.new_empty(*x.shape[:-1], form.stride) if keep else None
    y = x.new_empty(shape) if keep and gain is not None else out
    block, _ = _describe(form, seed, x, weight, bias, gain, shift, packed, y)
    block.out = out.data_ptr()
    native.solve(block, 0)
    return out, packed, y


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx, call: BlockCall, seed, *floats) -> Tensor:
        ctx.form = _Form.of(call)
        out, packed, y = _solved(ctx.form, True, seed, *floats)
        ctx.save_for_backward(seed, *floats, packed, y)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        seed, *floats, packed, y = ctx.saved_tensors
        if torch.is_grad_enabled():  # the caller wants to differentiate the gradient
            return None, None, *_differentiable(ctx.form.call, seed, floats, grad)
        x, weight, bias, gain, shift = floats
        block, described = _describe(ctx.form, seed, x, weight, bias, gain, shift, packed, y)
        grad = grad.contiguous()
        block.grad = grad.data_ptr()
        results: dict[str, Any] = {
            name: None if x is None else torch.empty_like(x) for name, x in described.items()
        }
        for name, result in results.items():
            setattr(block, f"d{name}", _address(result))
        native.solve(block, 1)
        dx, dweight, dbias, dvalues, dvalues_bias, dgain, dshift = results.values()
        if ctx.form.factored:
            dmaps = dweight, dbias, dvalues, dvalues_bias
            heads, width = ctx.form.call.heads, ctx.form.width
            dweight, dbias = factored.gradients(weight, bias, heads, width, dmaps)
        return None, None, dx, dweight, dbias, dgain, dshift


def _differentiable(call, seed, floats, grad):
    """Gradients of `floats` with a graph of their own, by the definition."""
    names = ("x", "weight", "bias", "gain", "shift")
    call = call._replace(**dict(zip(names, floats, strict=True)))

    def attend(q, k, v):
        q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))
        heads = cpu.attend(q, k, v, None, None, None, None, seed, call.scale, call.dropout)
        return heads.transpose(-2, -3).view(*call.x.shape[:-1], call.heads, -1)

    wanted = [x for x in floats if x is not None and x.requires_grad]
    found = iter(torch.autograd.grad(around(call, attend), wanted, grad, create_graph=True))
    return (next(found) if x is not None and x.requires_grad else None for x in floats)


def _describe(form: _Form, seed, x, weight, bias, gain, shift, packed, y):
    """The kernel's call, and its inputs with a gradient by name."""
    call, width = form.call, form.width
    maps = weight, bias, None, None
    if form.factored:
        maps = factored.maps(weight, bias, call.heads, width)
    inputs = {"x": x, **dict(zip(MAPS, maps, strict=True)), "gain": gain, "shift": shift}
    tensors = {"seed": seed, **inputs, "packed": packed, "y": y}
    block = native.Block(
        problems=x.shape[:-2].numel(), tokens=x.shape[-2], in_width=x.shape[-1], width=width,
        heads=call.heads, stride=form.stride, activated=call.activation == "relu",
        residual=get_args(Residual).index(call.residual),
        norm_first=call.norm_first and gain is not None,
        scale=call.scale, dropout=call.dropout, eps=call.eps,
        **{name: _address(tensor) for name, tensor in tensors.items()},
    )  # fmt: skip
    return block, inputs


def _stride(call: BlockCall, is_factored: bool) -> int:
    """Of a row of what is kept: queries, keys and values, or z and u, and a rectified residual.

    An odd number of cache lines: rows a power of two apart would fall into few cache sets.
    """
    columns = 2 * call.heads * call.x.shape[-1] if is_factored else 3 * call.width
    columns += call.width * (call.residual == "linear_relu")
    return 16 * (-(-columns // 16) | 1)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
