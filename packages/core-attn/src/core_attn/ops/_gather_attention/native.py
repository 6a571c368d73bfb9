"""The C kernel of attention over lists, and the layout of its calls."""

import ctypes
from pathlib import Path

from ...native import Kernel
from .._dispatch import constant_in_graphs

KERNEL = Kernel("gather_attention", Path(__file__).with_name("kernel"), ["core_attn_gather"])
AXES = 3


def _strides(name: str, last: str) -> type[ctypes.Structure]:
    fields = [("data", ctypes.c_void_p), *((n, ctypes.c_int64) for n in ("batch", "head", last))]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


Rows, Index = _strides("Rows", "row"), _strides("Index", "group")


class Call(ctypes.Structure):
    """The arguments of a pass; `Call` of kernel/groups.h."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                "batch", "heads", "groups", "members", "picks", "dim", "v_dim", "query_count",
            )
        ),
        *((name, Rows) for name in ("q", "k", "v", "out", "grad", "dq", "dk", "dv")),
        ("queries", Index),
        ("keys", Index),
        ("axes", ctypes.c_int64),
        ("window", ctypes.c_int64 * AXES),
        ("inner", ctypes.c_int64 * AXES),
        ("table", ctypes.c_void_p * AXES),
        ("dtable", ctypes.c_void_p * AXES),
        ("table_head", ctypes.c_int64 * AXES),
        ("slot_bias", ctypes.c_void_p),
        ("dslot_bias", ctypes.c_void_p),
        ("slot_bias_head", ctypes.c_int64),
        *((name, ctypes.c_int) for name in ("masked", "by_member", "causal")),
        *((name, ctypes.c_float) for name in ("self_bias", "scale")),
    ]  # fmt: skip


def solve(call: Call, pass_number: int) -> None:
    """Runs pass 0 (forward) or 1 (backward) on torch's number of threads.

    Raises:
        MemoryError: the kernel found no memory to work in.
    """
    KERNEL.run("core_attn_gather", call, pass_number)


@constant_in_graphs
def missing() -> str | None:
    """Why there is no kernel on this machine; None where there is one."""
    return KERNEL.missing()
