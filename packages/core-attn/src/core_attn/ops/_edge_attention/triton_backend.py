"""edge_attention on a GPU: the Triton kernel, differentiable twice."""

from typing import Any

import torch
from torch import Tensor

from .._eager import untraced
from .._triton_host import arch_of, interpreted, refuses_device
from .call import EdgeCall
from .derivatives import differentiable

MOST_CHANNELS = 64
TIMED = 32  # edges of an atom


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
    """Without being asked it runs where it measured faster: on an H200, of up to 32 edges."""
    if torch.compiler.is_exporting():
        return "exports are left to torch's own operators"
    if (reason := interpreted(call.q)) is not None:
        return reason
    if not untraced(call.offsets):
        return "a graph does not know how many edges an atom has"
    if arch_of(call.q.device) != "sm90":
        return "its second derivatives spill registers, and it was timed on sm_90 only"
    longest = int(call.offsets.diff().max())
    return None if longest <= TIMED else f"it was timed up to {TIMED} edges, there are {longest}"


def _solve(number: int, q: Tensor, *arguments: Any, **tensors: Any) -> None:
    from .triton_kernels import solve

    kept = {name: None if x is None else x.contiguous() for name, x in tensors.items()}
    solve(number, q, *arguments, arch=arch_of(q.device), **kept)


attend = differentiable("edge_attention_triton", _solve)
