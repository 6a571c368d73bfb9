"""edge_attention on a GPU: the Triton kernel, differentiable twice."""

from typing import Any

import torch
from torch import Tensor

from .._triton_host import arch_of, interpreted, refuses_device
from .call import EdgeCall
from .derivatives import differentiable

MOST_CHANNELS = 64


def run(call: EdgeCall) -> Tensor:
    """The operator of torch on contiguous tensors."""
    return attend(*call.tensors(), torch.tensor(call.degrees), call.scale, call.first_only)


def refuses(call: EdgeCall) -> str | None:
    """It takes float32 on a GPU, without dropout and biases of pairs."""
    if (reason := refuses_device(call.q)) is not None:
        return reason
    if (reason := call.beyond_kernels()) is not None:
        return reason
    widest = max(call.q.shape[2], call.v.shape[2])
    if widest > MOST_CHANNELS:
        return f"it knows heads up to {MOST_CHANNELS} channels, there are {widest}"
    return "there are no edges" if call.k.numel() == 0 else None


def reluctant(call: EdgeCall) -> str | None:
    """It runs where it is asked for: its second pass spills, and no GPU has timed it yet."""
    if torch.compiler.is_exporting():
        return "exports are left to torch's own operators"
    return interpreted(call.q) or "its second derivatives spill registers; not timed on a GPU yet"


def _solve(number: int, q: Tensor, *arguments: Any, **tensors: Any) -> None:
    from .triton_kernels import solve

    kept = {name: None if x is None else x.contiguous() for name, x in tensors.items()}
    solve(number, q, *arguments, arch=arch_of(q.device), **kept)


attend = differentiable("edge_attention_triton", _solve)
