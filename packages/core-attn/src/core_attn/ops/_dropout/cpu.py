"""Dropout on a CPU: a C kernel that draws by hashing."""

import torch
from torch import Tensor

from .._along_tokens import native

Call = native.structure("Dropout", ("count",), ("x", "seed", "out"), ("dropout",))


def run(x: Tensor, p: float) -> Tensor:
    """Draws a seed from torch's generator, and from it everything else."""
    dropped: Tensor = _Dropout.apply(x.float(), torch.randint(2**63 - 1, (1,)), p)  # type: ignore
    return dropped.to(x.dtype)


def refuses(x: Tensor) -> str | None:
    """It takes all but float64 on a CPU with a C compiler, or a prebuilt kernel."""
    if torch.compiler.is_compiling():
        return "a compiler fuses torch's own draws"
    return native.refuses(x)


class _Dropout(torch.autograd.Function):
    """Linear, so that every derivative of it is itself with the same seed."""

    @staticmethod
    def forward(ctx, x: Tensor, seed: Tensor, p: float) -> Tensor:
        ctx.seed, ctx.p = seed, p
        x = x.contiguous()
        out = torch.empty_like(x)
        native.run(
            "core_attn_dropout", Call(), 0, count=x.numel(), x=x, seed=seed, out=out, dropout=p
        )
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Dropout.apply(grad, ctx.seed, ctx.p), None, None
