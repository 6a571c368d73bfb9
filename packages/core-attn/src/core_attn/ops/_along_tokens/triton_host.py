"""What the Triton backends along the tokens say of a call, importable without triton."""

from torch import Tensor

from .._triton_host import interpreted, refuses_device
from . import native


def refuses(x: Tensor) -> str | None:
    """They take all but float64 on a GPU."""
    if (reason := refuses_device(x)) is not None:
        return reason
    return "there is nothing to compute" if x.numel() == 0 else None


def reluctant(x: Tensor) -> str | None:
    """They leave exports, and CPUs under the interpreter, to others."""
    return interpreted(x) or native.exported()
