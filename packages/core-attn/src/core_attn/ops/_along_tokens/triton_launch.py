"""How the Triton kernels along the tokens are launched."""

from typing import Any

import triton
from torch import Tensor

from .._triton_common import Launch

BLOCK = 32


def over_channels(kernel: Any, texts: Tensor, /, **args: Any) -> Launch:
    """`kernel` with a program for every BLOCK channels of every text (batch, tokens, channels)."""
    batch, tokens, channels = texts.shape
    sizes = {"tokens": tokens, "channels": channels, "BLOCK": BLOCK}
    return Launch(kernel, batch, args | sizes, triton.cdiv(channels, BLOCK))
