"""The kernels that solve short problems whole, in the order in which they are asked."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from . import cpu, triton_backend
from .call import ShortCall


class Kernel(NamedTuple):
    """A kernel: what it computes, why it could not, why it should not.

    `twice` says whether its gradients have gradients.
    """

    name: str
    run: Callable[[ShortCall], Tensor]
    cannot: Callable[[ShortCall], str | None]
    reluctant: Callable[[ShortCall], str | None]
    twice: bool

    def refuses(self, call: ShortCall) -> str | None:
        """Why it should not take the call."""
        return self.cannot(call) or self.reluctant(call)


KERNELS = (
    Kernel("triton", triton_backend.run, triton_backend.refuses, triton_backend.reluctant, False),
    Kernel("cpu", cpu.run, cpu.refuses, cpu.reluctant, True),
)
