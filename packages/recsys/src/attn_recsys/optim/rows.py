"""The sparse optimisers' kernel in C, for float32 tables on a CPU."""

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core_attn.native import Kernel

KERNEL = Kernel(
    "attn_recsys_rows",
    Path(__file__).with_name("kernel"),
    ["attn_recsys_adam", "attn_recsys_adagrad"],
)


class Adam(ctypes.Structure):
    """A step of `DeferredAdam`, its catching up or its reading; `Adam` of kernel/rows.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "width", "stride")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "rows", "order", "grad", "value", "out", "weight", "mean", "square", "at", "missed"
            )
        ),
        *((name, ctypes.c_int64) for name in ("capacity", "start", "now")),
        *((name, ctypes.c_double) for name in ("beta1", "beta2")),
        *((name, ctypes.c_float) for name in ("lr", "eps")),
    ]  # fmt: skip


class Adagrad(ctypes.Structure):
    """A step of `RowAdagrad`; `Adagrad` of kernel/rows.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "width")),
        *((name, ctypes.c_void_p) for name in ("rows", "order", "grad", "weight", "total")),
        *((name, ctypes.c_float) for name in ("lr", "eps")),
    ]


def serves(weight: Tensor) -> bool:
    """Whether the kernel can step this table."""
    cpu = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.is_contiguous()
    return cpu and KERNEL.missing() is None


def run(
    entry: str, call: ctypes.Structure, weight: Tensor, rows: Tensor, **tensors: Tensor
) -> None:
    """Runs an entry on the rows of a table.

    Raises:
        IndexError: a row is not in the table.
    """
    if not rows.numel():
        return
    low, high = (int(x) for x in rows.aminmax())
    if low < 0 or high >= len(weight):
        raise IndexError(f"ids must be within 0 to {len(weight) - 1}, got {low} to {high}")
    call.count, call.width = rows.numel(), weight[0].numel()
    for name, x in {"weight": weight, "rows": rows, **tensors}.items():
        setattr(call, name, x.data_ptr())
    KERNEL.run(entry, call)


def ordered(grad: Tensor, known: dict[tuple[int, int], Any]) -> dict[str, Tensor]:
    """The rows of a sparse gradient, ascending, with their order and the values as they came.

    Tables that were read by the same ids share the sorting through `known`.
    """
    ids = grad._indices()[0]
    place = ids.data_ptr(), ids.numel()
    if place not in known:
        known[place] = ids.sort(stable=True)
    rows, order = known[place]
    return {"rows": rows, "order": order, "grad": grad._values().contiguous()}
