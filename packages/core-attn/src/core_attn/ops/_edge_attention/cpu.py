"""edge_attention on a CPU: the C kernel, differentiable twice."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from ...native import Kernel
from .._dispatch import constant_in_graphs
from .call import EdgeCall
from .derivatives import differentiable

MOST_DEGREES = 16  # as in the kernel
KERNEL = Kernel("edge_attention", Path(__file__).with_name("kernel"), ["core_attn_edge_attention"])
POINTERS = (
    "q", "k", "v", "u", "bias", "out", "grad", "dq", "dk", "dv", "du", "dbias", "tq", "tk", "tv",
    "tu", "tbias", "dgrad",
)  # fmt: skip


class Call(ctypes.Structure):
    """The arguments of a pass; `Call` of kernel/edge_attention.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("atoms", "heads", "dim", "v_dim", "degrees", "first_only")
        ),
        ("offsets", ctypes.c_void_p),
        ("channels", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in POINTERS),
    ]


def run(call: EdgeCall) -> Tensor:
    """The operator of torch on contiguous tensors."""
    return attend(*call.tensors(), torch.tensor(call.degrees), call.scale, call.first_only)


@constant_in_graphs
def _missing() -> str | None:
    return KERNEL.missing()


def refuses(call: EdgeCall) -> str | None:
    """It takes float32 on a CPU with a C compiler, without dropout and biases of pairs."""
    if call.q.device.type != "cpu":
        return f"the tensors are on {call.q.device.type}"
    if (reason := call.beyond_kernels()) is not None:
        return reason
    if len(call.degrees) > MOST_DEGREES:
        return f"it knows {MOST_DEGREES} degrees, there are {len(call.degrees)}"
    return _missing()


def _solve(
    number: int, q: Tensor, v: Tensor, offsets: Tensor, channels: Tensor, scale: float,
    first_only: bool, **tensors: Tensor | None,
) -> None:  # fmt: skip
    call = Call(
        atoms=offsets.shape[0] - 1, heads=q.shape[1], dim=q.shape[2], v_dim=v.shape[2],
        degrees=channels.shape[0], first_only=int(first_only), offsets=offsets.data_ptr(),
        channels=channels.data_ptr(), scale=scale,
    )  # fmt: skip
    kept = {"q": q, "v": v} | {name: x for name, x in tensors.items() if x is not None}
    kept = {name: x.contiguous() for name, x in kept.items()}
    for name, x in kept.items():
        setattr(call, name, x.data_ptr())
    KERNEL.run("core_attn_edge_attention", call, number)


attend = differentiable("edge_attention", _solve)
