"""The feed-forward part of AutoInt+ and of the baselines."""

import math
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from core_attn import Dropout


class DeepPart(nn.Module):
    """Hidden layers ReLU(x W + b) with dropout, and a logit of their own where asked for.

    Args:
        in_width: features in.
        widths: hidden widths.
        dropout: probability of dropping a hidden unit, in training.
        norm: whether batch norm sits before each ReLU.
        norm_eps: its epsilon.
        logit: whether a linear map to one number follows.

    Source: Song et al., 2019, arXiv 1810.11921, section 5.4; official code for the start values.

    Example:
        >>> import torch
        >>> DeepPart(6, (5, 4))(torch.randn(3, 6)).shape
        torch.Size([3, 1])
    """

    def __init__(
        self,
        in_width: int,
        widths: tuple[int, ...],
        *,
        dropout: float = 0.0,
        norm: bool = False,
        norm_eps: float = 1e-5,
        logit: bool = True,
    ):
        super().__init__()
        self.hidden = nn.Sequential()
        for before, width in zip((in_width, *widths), widths, strict=False):
            self.hidden.append(nn.Linear(before, width))
            if norm:
                self.hidden.append(nn.BatchNorm1d(width, eps=norm_eps))
            self.hidden.append(nn.ReLU())
            if dropout:
                self.hidden.append(Dropout(dropout))
        self.out = nn.Linear((in_width, *widths)[-1], 1) if logit else nn.Identity()
        self.reset("zero")

    @property
    def maps(self) -> list[nn.Linear]:
        """The hidden linear maps, whose kernels the official L2 penalty concerns."""
        return [layer for layer in self.hidden if isinstance(layer, nn.Linear)]

    @property
    def output_bias(self) -> nn.Parameter:
        """The bias of its logit."""
        assert isinstance(self.out, nn.Linear)
        return self.out.bias

    def reset(self, init: Literal["official", "zero"]) -> None:
        """Draws kernels from N(0, 2 / (fan_in + fan_out)); biases likewise, or 0."""
        for layer in self.maps:
            std = math.sqrt(2 / (layer.in_features + layer.out_features))
            nn.init.normal_(layer.weight, std=std)
            nn.init.normal_(layer.bias, std=std if init == "official" else 0.0)
        if isinstance(self.out, nn.Linear):
            nn.init.normal_(self.out.weight, std=math.sqrt(2 / (self.out.in_features + 1)))
            nn.init.normal_(self.out.bias, std=1.0 if init == "official" else 0.0)

    def forward(self, x: Float[Tensor, "batch in_width"]) -> Float[Tensor, "batch out"]:
        """Returns the logit (batch, 1), or the last hidden layer."""
        return self.out(self.hidden(x))
