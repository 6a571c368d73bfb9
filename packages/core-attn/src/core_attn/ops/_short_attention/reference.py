"""What short_attention is: `attention` on every problem, by its definition."""

from torch import Tensor

from .._attention import reference
from .call import ShortCall


def run(call: ShortCall) -> Tensor:
    """Every problem padded to the longest one; any dtype, differentiable any number of times."""
    return call.unpadded(reference.run(call.as_attention()))


def refuses(call: ShortCall) -> str | None:
    """It refuses nothing."""
    return None
