"""short_attention_block on a CPU: the C kernel as one node of the graph."""

import torch
from torch import Tensor

from ..short_attention import cpu, native
from .call import BlockCall
from .composed import around


def run(call: BlockCall) -> Tensor:
    """Keeps the packed product and the sum before the norm if there will be a backward."""
    seed = torch.randint(2**63 - 1, (1,)) if call.dropout else None
    floats = (call.x, call.weight, call.bias, call.gain, call.shift)
    floats = [None if x is None else x.contiguous() for x in floats]
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in floats)
    return _Block.apply(call, keep, seed, *floats)


def refuses(call: BlockCall) -> str | None:
    """It takes eager float32 calls on a CPU whose widths are whole vectors."""
    x, width = call.x, call.width
    if call.attend is not None:
        return "the heads are watched"
    if x.device.type != "cpu":
        return f"the tensors are on {x.device.type}"
    if x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return "it computes in float32 only"
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return "it cannot be traced or transformed"
    if not 2 <= x.shape[-2] <= 128:
        return f"a problem has {x.shape[-2]} tokens, not within 2 to 128"
    if not 8 <= width // call.heads <= 64:
        return f"a head dim is {width // call.heads}, not within 8 to 64"
    if x.numel() == 0:
        return "there are no problems"
    if native.missing() is None and (x.shape[-1] % native.lanes() or width % native.lanes()):
        return f"widths {x.shape[-1]} and {width} are not multiples of {native.lanes()}"
    return native.missing()


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx, call: BlockCall, keep: bool, seed, x, weight, bias, gain, shift) -> Tensor:
        shape = (*x.shape[:-1], call.width)
        out = x.new_empty(shape)
        packed = x.new_empty(*x.shape[:-1], _stride(weight)) if keep else None
        y = x.new_empty(shape) if keep and gain is not None else out
        ctx.call = call._replace(x=None, weight=None, bias=None, gain=None, shift=None)
        ctx.save_for_backward(seed, x, weight, bias, gain, shift, packed, y)
        block = _describe(ctx.call, call.width, seed, x, weight, bias, gain, shift, packed)
        block.y, block.out = y.data_ptr(), out.data_ptr()
        native.solve(block, 0)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        seed, *floats, packed, y = ctx.saved_tensors
        if torch.is_grad_enabled():  # the caller wants to differentiate the gradient
            return None, None, None, *_differentiable(ctx.call, seed, floats, grad)
        results = [None if x is None else torch.empty_like(x) for x in floats]
        x, weight, bias, gain, shift = floats
        block = _describe(ctx.call, y.shape[-1], seed, x, weight, bias, gain, shift, packed)
        grad = grad.contiguous()
        block.y, block.grad = y.data_ptr(), grad.data_ptr()
        names = ("dx", "dweight", "dbias", "dgain", "dshift")
        for name, x in zip(names, results, strict=True):
            setattr(block, name, _address(x))
        native.solve(block, 1)
        return None, None, None, *results


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


def _describe(call, width, seed, x, weight, bias, gain, shift, packed) -> native.Block:
    mapped = call.residual.startswith("linear")
    activated = 0b0111 * (call.activation == "relu") | 0b1000 * (call.residual == "linear_relu")
    tensors = {
        "seed": seed, "x": x, "weight": weight, "bias": bias, "gain": gain, "shift": shift,
        "packed": packed,
    }  # fmt: skip
    return native.Block(
        problems=x.shape[:-2].numel(), tokens=x.shape[-2], in_width=x.shape[-1], width=width,
        heads=call.heads, stride=_stride(weight), activated=activated,
        residual=2 if mapped else int(call.residual == "identity"),
        norm_first=call.norm_first and gain is not None,
        scale=call.scale, dropout=call.dropout, eps=call.eps,
        **{name: _address(tensor) for name, tensor in tensors.items()},
    )  # fmt: skip


def _stride(weight: Tensor) -> int:
    """Of a row of the packed product: one of a power of two would fall into few cache sets."""
    return len(weight) + 16


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
