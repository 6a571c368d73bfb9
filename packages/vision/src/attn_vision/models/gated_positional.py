"""Gated positional self-attention (GPSA): content and position, mixed by a gate per head."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from core_attn import AttentionLayer, attention, attention_weights, dropout

from .skeleton import init_parts
from .tokens import TokenState


class GatedPositionalAttention(AttentionLayer):
    """Weights A = (1 - g) softmax(q k^T / sqrt(d)) + g softmax(u R), with g a number per head.

    R holds, for a query and a key, their distance in columns and rows and its square. The second
    softmax is that of a sum over rows plus a sum over columns, so it is the product of two small
    ones: the layer multiplies the values by one after the other, and never builds A unless its
    tap `pattern` is listened to.

    Args:
        dim: features of a token.
        heads: attention heads.
        qkv_bias: whether queries, keys and values have a bias.
        locality_strength: how narrow the first heads' windows are at the start.
        dropout: probability of dropping a weight, in training.

    Raises:
        ValueError: `heads` do not divide `dim`; in `forward`, tokens that are not a whole grid.

    Source: d'Ascoli et al., 2021, "ConViT: Improving Vision Transformers with Soft Convolutional
    Inductive Biases", arXiv 2103.10697, eqs. (6) and (7).

    Example:
        >>> state = TokenState(torch.randn(2, 15, 8), grid=(3, 5))
        >>> GatedPositionalAttention(8, heads=4)(state).shape
        torch.Size([2, 15, 8])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        qkv_bias: bool = False,
        locality_strength: float = 1.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"dim {dim} is not divisible by heads {heads}")
        self.num_heads, self.head_dim = heads, dim // heads
        self.locality_strength, self.dropout = locality_strength, dropout
        self.qk = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.v = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.pos_proj = nn.Linear(3, heads)
        self.gating_param = nn.Parameter(torch.ones(heads))
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """The first k*k heads look at the k*k nearest places, each at one; values are copied."""
        init_parts(self)
        nn.init.eye_(self.v.weight)
        nn.init.ones_(self.gating_param)
        side = math.isqrt(self.num_heads)
        center = (side - 1) / 2 if side % 2 == 0 else side // 2
        for row in range(side):
            for column in range(side):
                away = torch.tensor([2 * (row - center), 2 * (column - center), -1.0])
                self.pos_proj.weight[column + side * row] = away
        self.pos_proj.weight *= self.locality_strength

    def gate(self) -> Float[Tensor, " heads"]:
        """The share of position in each head's weights."""
        return self.gating_param.sigmoid()

    def places(
        self, grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "heads rows rows"], Float[Tensor, "heads columns columns"]]:
        """The softmax over positions as its two factors, in float32 or wider."""
        wide = torch.promote_types(self.pos_proj.weight.dtype, torch.float32)
        weight, bias = self.pos_proj.weight.to(wide), self.pos_proj.bias.to(wide)
        axes = []
        for size, slope, offset in zip(grid, (1, 0), (bias, torch.zeros_like(bias)), strict=True):
            place = torch.arange(size, dtype=wide, device=weight.device)
            apart = place - place[:, None]
            scores = (
                weight[:, slope, None, None] * apart + weight[:, 2, None, None] * apart.square()
            )
            axes.append((scores + offset[:, None, None]).softmax(-1))
        return axes[0], axes[1]

    def forward(self, state: TokenState) -> Float[Tensor, "batch tokens dim"]:
        """Attends among the patches."""
        grid, x = state.grid, state.tokens
        if grid is None or state.prefix or grid[0] * grid[1] != x.shape[1]:
            raise ValueError(
                f"GPSA needs a rectangular grid of patches and no other token; got {x.shape[1]} "
                f"tokens, {state.prefix} of them without a patch, on the grid {grid}"
            )
        q, k = rearrange(self.qk(x), "b t (n h d) -> n b h t d", n=2, d=self.head_dim)
        v = rearrange(self.v(x), "b t (h d) -> b h t d", d=self.head_dim)
        gate = self.gate()[:, None, None]
        with torch.autocast(x.device.type, enabled=False):
            rows, columns = self.places(grid)
        if self.pattern.listening or (self.training and self.dropout > 0):
            near = torch.einsum("hij,hkl->hikjl", rows, columns).flatten(3).flatten(1, 2)
            weights = (1 - gate) * attention_weights(q, k) + gate * near
            weights = self.pattern(weights / weights.sum(-1, keepdim=True))
            heads = dropout(weights, self.dropout, self.training).to(v.dtype) @ v
        else:
            near = rearrange(v, "b h (r c) d -> b h r c d", r=grid[0])
            near = torch.einsum("hij,bhjcd->bhicd", rows.to(v.dtype), near)
            near = torch.einsum("hkl,bhrld->bhrkd", columns.to(v.dtype), near).flatten(2, 3)
            heads = (1 - gate) * attention(q, k, v) + gate * near
        return self.proj(self.heads(heads.to(x.dtype).transpose(1, 2)).flatten(2))
