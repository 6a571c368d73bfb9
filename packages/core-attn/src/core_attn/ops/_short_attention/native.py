"""The C kernels of short attention and of the block around it, and the layout of their calls."""

import ctypes
from pathlib import Path

from ...native import Kernel
from .._dispatch import constant_in_graphs

KERNEL = Kernel(
    "short_attention",
    Path(__file__).with_name("kernel"),
    ["core_attn_short_attention", "core_attn_block"],
)


class View(ctypes.Structure):
    """An array and its strides, in elements; `View` of kernel/problem.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("problem", "head", "row", "column")),
    ]


VIEWS = (
    "q", "k", "v", "bias", "mask", "gate", "out",
    "grad", "dq", "dk", "dv", "dbias", "dgate",
    "tq", "tk", "tv", "tbias", "tgate", "dgrad",
)  # fmt: skip


class Call(ctypes.Structure):
    """The arguments of a pass; `Call` of kernel/problem.h."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                "problems",
                "heads",
                "queries",
                "keys",
                "dim",
                "v_dim",
                "total",
                "reach",
            )
        ),
        ("offsets", ctypes.c_void_p),
        ("seed", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("dropout", ctypes.c_float),
        ("adds_out", ctypes.c_int),
        ("adds_keys", ctypes.c_int),
        *((name, View) for name in VIEWS),
    ]


class Block(ctypes.Structure):
    """A layer around the attention; `Block` of kernel/block.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                "problems", "tokens", "in_width", "width", "heads", "stride",
                "activated", "residual", "norm_first",
            )
        ),
        ("seed", ctypes.c_void_p),
        *((name, ctypes.c_float) for name in ("scale", "dropout", "eps")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "x", "weight", "bias", "values", "values_bias", "gain", "shift", "packed", "y",
                "out", "grad", "dx", "dweight", "dbias", "dvalues", "dvalues_bias", "dgain",
                "dshift",
            )
        ),
    ]  # fmt: skip


def solve(call: Call | Block, pass_number: int) -> None:
    """Runs pass 0 (forward), 1 (backward) or 2 (its derivative) on torch's number of threads.

    Raises:
        MemoryError: the kernel found no memory to work in.
        ValueError: offsets do not fit, which graphs leave unread at the door.
    """
    entry = "core_attn_block" if isinstance(call, Block) else "core_attn_short_attention"
    if KERNEL.run(entry, call, pass_number):
        raise ValueError(
            "offsets must rise from 0 to the tokens of q, (total, heads, dim) in compiled graphs, "
            "and no problem be longer than bias, mask or 128 tokens"
        )


def lanes() -> int:
    """Floats in a vector of the processor, as compiled."""
    return ctypes.c_int.in_dll(KERNEL.library, "core_attn_lanes").value


@constant_in_graphs
def missing() -> str | None:
    """Why there is no kernel on this machine; None where there is one."""
    return KERNEL.missing()
