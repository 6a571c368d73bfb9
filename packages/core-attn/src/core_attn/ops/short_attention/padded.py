"""Problems that no short kernel takes: `attention` on the padded batch."""

from torch import Tensor

from .._dispatch import dispatch
from ..attention import BACKENDS
from .call import ShortCall


def run(call: ShortCall) -> Tensor:
    """Pads packed problems to the longest one and lets `attention` choose its backend."""
    return call.unpadded(dispatch("attention", BACKENDS, call.as_attention()))


def refuses(call: ShortCall) -> str | None:
    """It refuses nothing."""
    return None
