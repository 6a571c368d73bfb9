"""The C kernels and the layout of their calls; the structures are those of the sources."""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...native import Kernel
from .._dispatch import constant_in_graphs

KERNEL = Kernel(
    "along_tokens",
    Path(__file__).with_name("kernel"),
    ["core_attn_wkv", "core_attn_lif", "core_attn_pluecker", "core_attn_dropout", "core_attn_top"],
)


def structure(name: str, sizes: Sequence[str], arrays: Sequence[str], numbers: Sequence[str] = ()):
    """The type of a call: sizes, then pointers, then floats."""
    fields = [(size, ctypes.c_int64) for size in sizes]
    fields += [(array, ctypes.c_void_p) for array in arrays]
    fields += [(number, ctypes.c_float) for number in numbers]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def run(entry: str, call: ctypes.Structure, pass_number: int, **given: Any) -> None:
    """Fills a call with sizes, numbers and the addresses of tensors, and runs it."""
    for name, value in given.items():
        setattr(call, name, value.data_ptr() if isinstance(value, Tensor) else value)
    KERNEL.run(entry, call, pass_number)


@constant_in_graphs
def missing() -> str | None:
    """Why there is no kernel on this machine; None where there is one."""
    return KERNEL.missing()


def refuses(x: Tensor) -> str | None:
    """Why the kernels cannot take tensors like `x`, or None."""
    if x.device.type != "cpu":
        return f"the tensors are on {x.device.type}"
    if x.dtype == torch.float64:
        return "it computes in float32, the tensors are float64"
    if x.numel() == 0:
        return "there is nothing to compute"
    return missing()


def exported() -> str | None:
    """Why another backend should be taken although the kernel can."""
    if torch.compiler.is_exporting():
        return "exported programs consist of torch's own operators"
    return None


def filled(*pairs: tuple[Tensor | None, Tensor]) -> list[Tensor]:
    """The first of each pair, or zeros like the second where it is None."""
    return [torch.zeros_like(like) if x is None else x for x, like in pairs]


def once(name: str) -> Callable[..., Any]:
    """A derivative's derivative, that there is not."""

    def refuse(ctx: Any, *grads: Any) -> None:
        raise NotImplementedError(
            f"compiled, {name} has no second derivatives; compute the forward pass under "
            'core_attn.use_backend("reference"), which has them'
        )

    return refuse
