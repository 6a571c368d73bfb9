"""Pooling by attention: one learned query gathers all patches."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core_attn import AttentionLayer

from .blocks import Mlp
from .tokens import TokenState


class AttentionPool(AttentionLayer):
    """y = proj(attention(latent, patches)); y + mlp(norm(y)).

    Args:
        dim: features of a token.
        heads: attention heads.
        mlp_ratio: hidden features of the MLP per feature of a token.
        norm_eps: epsilon of the layer norm.

    Source: Zhai et al., 2022, "Scaling Vision Transformers", arXiv 2106.04560, section 2.2 (MAP
    head), as timm builds it.

    Example:
        >>> AttentionPool(8, heads=2)(torch.randn(3, 5, 8)).shape
        torch.Size([3, 8])
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, norm_eps: float = 1e-6):
        super().__init__()
        self.num_heads = heads
        self.latent = nn.Parameter(torch.empty(1, 1, dim))
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.init_weights()

    def init_weights(self) -> None:
        """The latent by its width, matrices narrow, biases 0."""
        nn.init.trunc_normal_(self.latent, std=self.latent.shape[-1] ** -0.5)
        for layer in (self.q, self.kv, self.proj, self.mlp.fc1, self.mlp.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, patches: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch dim"]:
        """One vector for all patches."""
        asking = self.q(self.latent).expand(patches.shape[0], -1, -1)
        q, k, v = (
            x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x in (asking, *self.kv(patches).chunk(2, -1))
        )
        y = self.proj(self.attend(q, k, v).flatten(2))
        return (y + self.mlp(TokenState(self.norm(y), None)))[:, 0]
