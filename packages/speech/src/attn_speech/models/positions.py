"""Sinusoids added to tokens and frames."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core_attn import Dropout


def sinusoids(start: int, stop: int, dim: int) -> Float[Tensor, "positions dim"]:
    """Sine and cosine of positions start ... stop - 1 at dim / 2 wavelengths, interleaved.

    Source: Vaswani et al., 2017, arXiv 1706.03762, section 3.5.

    Example:
        >>> sinusoids(0, 2, 2)
        tensor([[0.0000, 1.0000],
                [0.8415, 0.5403]])
    """
    position = torch.arange(start, stop, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * -(math.log(10000.0) / dim))
    code = torch.stack([(position * rate).sin(), (position * rate).cos()], -1)
    return code.flatten(1)[:, :dim]


class Positions(nn.Module):
    """Adds sinusoids, scaled by a learned factor or to features scaled by sqrt(dim).

    The table grows with the longest sequence seen; there is no longest one.

    Args:
        dim: features.
        scaled: whether the sinusoids have the learned factor alpha.
        alpha: its start.
        dropout: probability of dropping a feature, in training.

    Source: Li et al., 2019, arXiv 1809.08895, section 3.2.
    """

    table: Tensor

    def __init__(self, dim: int, *, scaled: bool, alpha: float, dropout: float):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(float(alpha))) if scaled else None
        self.dropout = Dropout(dropout)
        self.register_buffer("table", sinusoids(0, 512, dim), persistent=False)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], start: int = 0
    ) -> Float[Tensor, "batch tokens dim"]:
        """Adds positions start, start + 1, …"""
        stop, dim = start + x.shape[1], x.shape[2]
        if torch.compiler.is_compiling():  # a graph for any length cannot hold a table
            code = sinusoids(start, stop, dim).to(x)
        else:
            if stop > len(self.table):
                self.table = sinusoids(0, 2 * stop, dim).to(self.table)
            code = self.table[start:stop].to(x)
        if self.alpha is None:
            return self.dropout(x * math.sqrt(dim) + code)
        return self.dropout(x + self.alpha * code)
