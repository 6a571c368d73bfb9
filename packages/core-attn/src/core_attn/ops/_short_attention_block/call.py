"""The checked arguments of one short_attention_block call."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

Activation = Literal["none", "relu"]
Residual = Literal["none", "identity", "linear", "linear_relu"]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class BlockCall(NamedTuple):
    """Arguments of `short_attention_block` after its checks."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    gain: Tensor | None
    shift: Tensor | None
    heads: int
    activation: Activation
    residual: Residual
    norm_first: bool
    eps: float
    scale: float
    dropout: float
    attend: Attend | None

    @property
    def parts(self) -> int:
        """How many maps are stacked in the weight."""
        return 4 if self.residual.startswith("linear") else 3

    @property
    def width(self) -> int:
        """Features of a token after the block."""
        return self.weight.shape[0] // self.parts
