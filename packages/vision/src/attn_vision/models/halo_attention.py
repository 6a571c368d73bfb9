"""Halo attention: blocks of a map attend to themselves and a border around them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import AttentionLayer


class HaloAttention(AttentionLayer):
    """Attention of non-overlapping blocks of queries over windows that reach `halo` further.

    logit = q.k / sqrt(head_dim) + q.height[row of the slot] + q.width[its column], where rows and
    columns count from the query. Positions outside the map have keys and values of zeros: they
    keep their positional logit and take their share of the softmax, unless `mask_padding`. The
    first rows of the tables, window - block of them, belong to distances that never occur.

    Args:
        dim: channels in.
        heads: attention heads.
        block: side of a block of queries; with stride 2 it shrinks to half in the output.
        halo: how far a window reaches beyond its block.
        stride: of the output, 1 or 2.
        out_dim: channels out, the heads' values; `dim` by default.
        head_dim: channels of a head's queries and keys; by default `out_dim` times `qk_ratio`,
            rounded to a multiple of 8, over heads.
        qk_ratio: see `head_dim`.
        qkv_bias: whether queries, keys and values have a bias.
        avg_down: stride by average pooling of the output, as odd blocks always do.
        scale_positions: whether the positional logits are divided by sqrt(head_dim) too.
        mask_padding: whether positions outside the map are left out of the softmax.
        project: whether a linear map with a bias brings the heads back to `dim` channels.
        any_size: whether maps that no number of blocks covers are allowed; their last blocks
            reach beyond the map.

    Raises:
        ValueError: numbers that do not fit each other; in `forward`, a map of another size.

    Source: Vaswani et al., 2021, "Scaling Local Self-Attention for Parameter Efficient Visual
    Backbones", arXiv 2103.12731, section 2.2.

    Example:
        >>> import torch
        >>> HaloAttention(16, heads=2, block=4, halo=1)(torch.randn(2, 16, 8, 12)).shape
        torch.Size([2, 16, 8, 12])
    """

    def __init__(
        self,
        dim: int,
        heads: int = 8,
        *,
        block: int = 8,
        halo: int = 3,
        stride: int = 1,
        out_dim: int | None = None,
        head_dim: int | None = None,
        qk_ratio: float = 1.0,
        qkv_bias: bool = False,
        avg_down: bool = False,
        scale_positions: bool = False,
        mask_padding: bool = False,
        project: bool = False,
        any_size: bool = False,
    ):
        super().__init__()
        out_dim = out_dim or dim
        if heads < 1 or out_dim % heads:
            raise ValueError(f"out_dim {out_dim} is not divisible by heads {heads}")
        if block < 1 or halo < 0:
            raise ValueError(f"block must be at least 1 and halo at least 0, got {block}, {halo}")
        if stride not in (1, 2):
            raise ValueError(f"stride must be 1 or 2, got {stride}")
        self.num_heads, self.v_dim = heads, out_dim // heads
        self.head_dim = head_dim or multiple_of_8(out_dim * qk_ratio) // heads
        if self.head_dim < 1:
            raise ValueError(f"{out_dim} channels leave no features for each of {heads} heads")
        self.block, self.halo, self.any_size = block, halo, any_size
        self.scale_positions, self.mask_padding = scale_positions, mask_padding
        self.pooled = stride == 2 and (avg_down or block % 2 == 1)
        self.stride = 1 if self.pooled else stride
        self.q = nn.Linear(dim, heads * self.head_dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, heads * (self.head_dim + self.v_dim), bias=qkv_bias)
        rows = 2 * (block + 2 * halo) - 1
        self.height = nn.Parameter(torch.zeros(rows, self.head_dim))
        self.width = nn.Parameter(torch.zeros(rows, self.head_dim))
        self.proj = nn.Linear(out_dim, dim) if project else nn.Identity()
        self.init_weights()

    def init_weights(self) -> None:
        """Draws all weights from normal distributions cut at 2 standard deviations."""
        for layer in (self.q, self.kv):
            nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)
        for table in (self.height, self.width):
            nn.init.trunc_normal_(table, std=self.head_dim**-0.5)

    def forward(
        self, x: Float[Tensor, "batch dim rows columns"]
    ) -> Float[Tensor, "batch out_dim out_rows out_columns"]:
        """The map after attention, smaller by the stride."""
        rows, columns = x.shape[2:]
        if not self.any_size and (rows % self.block or columns % self.block):
            raise ValueError(
                f"a feature map of {rows}x{columns} is not divisible by block {self.block}; pad "
                "the input, or build with any_size=True"
            )
        tokens = _tokens(x).contiguous()  # once for both projections
        asking = x[:, :, :: self.stride, :: self.stride]
        asked = tokens if self.stride == 1 else _tokens(asking)
        q = self.q(asked).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        kv = self.kv(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = kv.split([self.head_dim, self.v_dim], -1)
        scale = self.head_dim**-0.5
        tables = (self.height, self.width)
        if self.scale_positions:
            tables = (scale * self.height, scale * self.width)
        heads = self.attend_neighborhood(
            q, k, v, (rows, columns), block=self.block, halo=self.halo, stride=self.stride,
            mask_padding=self.mask_padding, relative=tables, scale=scale,
        )  # fmt: skip
        y = self.proj(heads.flatten(2)).transpose(1, 2).unflatten(2, asking.shape[2:])
        return F.avg_pool2d(y, 2, 2) if self.pooled else y


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, not more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
