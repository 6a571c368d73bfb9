"""One attention layer and one position-wise ReLU network."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core_attn import MultiHeadAttention


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of the block.

    Attributes:
        tokens: n, each a number.
        dim: width of the stream.
        heads, head_dim: of the attention.
        hidden: width of the ReLU layer.
        positions: whether tokens know where they stand.
    """

    tokens: int
    dim: int = 4
    heads: int = 2
    head_dim: int = 4
    hidden: int = 64
    positions: bool = True


class SingleLayerTransformer(nn.Module):
    """T(X)_i = FFN(z_i + attention(z)_i) with z_i = embed(x_i) + position_i.

    Source: Gumaan, 2025, arXiv 2507.10581.

    Example:
        >>> SingleLayerTransformer(TransformerConfig(tokens=3))(torch.rand(5, 3)).shape
        torch.Size([5, 3])
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Linear(1, config.dim)
        if config.positions:
            self.position = nn.Parameter(torch.randn(config.tokens, config.dim))
        self.attention = MultiHeadAttention(config.dim, config.heads, head_dim=config.head_dim)
        self.hidden = nn.Linear(config.dim, config.hidden)
        self.output = nn.Linear(config.hidden, 1)

    def forward(self, x: Float[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens"]:
        """Maps sequences of numbers to sequences of numbers."""
        z = self.embed(x.unsqueeze(-1))
        if self.config.positions:
            z = z + self.position
        return self.output(self.hidden(z + self.attention(z)).relu()).squeeze(-1)
