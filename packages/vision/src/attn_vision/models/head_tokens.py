"""HI-MHSA: attention among tokens and one extra token per head."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import SelfAttention
from .tokens import TokenState


class HeadInteractedAttention(SelfAttention):
    """Self attention among the tokens and H head tokens, made anew from the heads' mean features.

    The head tokens stand last; what they gather is averaged and added to the first token.

    Args:
        dim: features of a token.
        heads: attention heads, and head tokens.
        qkv_bias: whether queries, keys and values have a bias.
        dropout: probability of dropping a weight, in training.

    Source: Lu et al., 2022, "Bridging the Gap Between Vision Transformers and Convolutional Neural
    Networks on Small Datasets", arXiv 2210.05958, section 3.4.

    Example:
        >>> state = TokenState(torch.randn(2, 10, 8), grid=(3, 3), prefix=1)
        >>> HeadInteractedAttention(8, heads=2)(state).shape
        torch.Size([2, 10, 8])
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool = True, dropout: float = 0.0):
        super().__init__(dim, heads, qkv_bias=qkv_bias, dropout=dropout)
        self.ht_proj = nn.Linear(self.head_dim, dim)
        self.ht_norm = nn.LayerNorm(self.head_dim)
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, heads, dim), std=0.02))

    def head_tokens(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch heads dim"]:
        """One token per head, from the mean of its features over all tokens."""
        means = x.mean(1).unflatten(-1, (self.num_heads, self.head_dim))
        split = self.ht_proj(means).unflatten(-1, (self.num_heads, self.head_dim))
        return F.gelu(self.ht_norm(split)).flatten(2) + self.pos_embed

    def forward(self, state: TokenState) -> Float[Tensor, "batch tokens dim"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Attends; the head tokens' mean goes to the first token."""
        x = state.tokens
        q, k, v = self.project(torch.cat([x, self.head_tokens(x)], 1))
        y = self.proj(self.attend(q, k, v, dropout=self.dropout).flatten(2))
        tokens, heads = y.split([x.shape[1], self.num_heads], 1)
        first, rest = tokens.split([1, x.shape[1] - 1], 1)
        return torch.cat([first + heads.mean(1, keepdim=True), rest], 1)
