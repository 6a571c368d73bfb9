"""Cosine attention with positions from an MLP, over all tokens or a window and a pooled map."""

import math

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import GatedHeads, HeadGate

from .tokens import TokenState


class LogOffsetBias(nn.Module):
    """A bias per head from the logarithm of the distance between query and key, by an MLP.

    Args:
        heads: attention heads.
        grid: rows and columns of the queries in training.
        pooled: rows and columns of the keys.
        measure: rows and columns by which distances are measured; `grid` by default.
        hidden: width of the MLP.

    Raises:
        ValueError: a side of the measure is 1: distances are measured in shares of side - 1.

    Source: Shi, 2024, "TransNeXt: Robust Foveal Visual Perception for Vision Transformers", arXiv
    2311.17132, section 3.4; Liu et al., 2022, "Swin Transformer V2", arXiv 2111.09883, eq. (4).

    Example:
        >>> LogOffsetBias(2, (4, 6), (2, 3))((4, 6), (2, 3)).shape
        torch.Size([2, 24, 6])
    """

    table: Tensor
    index: Tensor

    def __init__(
        self, heads: int, grid: tuple[int, int], pooled: tuple[int, int],
        measure: tuple[int, int] | None = None, hidden: int = 512,
    ):  # fmt: skip
        super().__init__()
        self.grid, self.pooled, self.measure = grid, pooled, measure or grid
        if min(self.measure) < 2:
            raise ValueError(
                f"a stage would be {self.measure[0]}x{self.measure[1]}; its sides must be at "
                "least 2: use larger images (64 px for patches of 4)"
            )
        self.fc1, self.fc2 = nn.Linear(2, hidden), nn.Linear(hidden, heads)
        table, index = _offsets(grid, pooled, self.measure)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("index", index, persistent=False)

    def forward(
        self, grid: tuple[int, int], pooled: tuple[int, int]
    ) -> Float[Tensor, "heads queries keys"]:
        """The bias between queries on `grid` and keys on `pooled`."""
        table, index = self.table, self.index
        if (grid, pooled) != (self.grid, self.pooled):
            table, index = (x.to(self.table.device) for x in _offsets(grid, pooled, self.measure))
        values = self.fc2(F.relu(self.fc1(table.to(self.fc1.weight))))
        return values[index].unflatten(0, (math.prod(grid), math.prod(pooled))).permute(2, 0, 1)


class CosineAttention(GatedHeads):
    """What both kinds of cosine attention share: lengths, temperature and a gate per head.

    Args:
        dim: features of a token.
        heads: attention heads.
        shared: the first heads, which always act.
        routed: how many of the others act for a token.
        qkv_bias: whether queries, keys and values have a bias.
        balance_weight: factor of the loss that keeps routed heads in balance.
    """

    def __init__(
        self, dim: int, heads: int, shared: int, routed: int, qkv_bias: bool, balance_weight: float
    ):
        if heads < 1 or dim % heads:
            raise ValueError(f"dim {dim} is not divisible by heads {heads}")
        super().__init__(HeadGate(dim, heads, shared, routed, balance_weight=balance_weight))
        self.num_heads, self.head_dim = heads, dim // heads
        start = math.log(math.expm1(1 / 0.24))
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), start))
        embedding = nn.init.trunc_normal_(torch.empty(heads, 1, self.head_dim), std=0.02)
        self.query_embedding = nn.Parameter(embedding)
        self.proj = nn.Linear(dim, dim)

    def stretched(self, q: Tensor, tokens: float | Tensor) -> Tensor:
        """Queries of length 1, moved and scaled by temperature and the logarithm of the keys."""
        length = tokens.log() if isinstance(tokens, Tensor) else math.log(tokens)
        return (q + self.query_embedding) * F.softplus(self.temperature) * length

    def split(self, x: Tensor, parts: int) -> Tensor:
        """(batch, tokens, parts * dim) as (parts, batch, heads, tokens, head_dim)."""
        return rearrange(x, "b t (n h d) -> n b h t d", n=parts, d=self.head_dim)


class GlobalCosineAttention(CosineAttention):
    """Cosine attention over all tokens of a map.

    Args:
        dim: features of a token.
        heads: attention heads.
        grid: rows and columns in training.
        shared: the first heads, which always act.
        routed: how many of the others act for a token.
        qkv_bias: whether queries, keys and values have a bias.
        balance_weight: factor of the loss that keeps routed heads in balance.
        measure: rows and columns by which distances are measured; `grid` by default.

    Source: Shi, 2024, "TransNeXt", arXiv 2311.17132, section 3.3; Jin et al., 2024, "MoH", arXiv
    2410.11842.

    Example:
        >>> layer = GlobalCosineAttention(16, 4, (3, 4), shared=2, routed=1)
        >>> layer(TokenState(torch.randn(2, 12, 16), (3, 4))).shape
        torch.Size([2, 12, 16])
    """

    def __init__(
        self, dim: int, heads: int, grid: tuple[int, int], *, shared: int, routed: int,
        qkv_bias: bool = True, balance_weight: float = 0.01,
        measure: tuple[int, int] | None = None,
    ):  # fmt: skip
        super().__init__(dim, heads, shared, routed, qkv_bias, balance_weight)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.positions = LogOffsetBias(heads, grid, grid, measure)

    def forward(self, state: TokenState) -> Float[Tensor, "batch tokens dim"]:
        """Attends among the tokens."""
        x, grid = state.tokens, _grid(state)
        q, k, v = self.split(self.qkv(x), 3)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        q = self.stretched(q, float(math.prod(grid))).to(v.dtype)
        bias = self.positions(grid, grid).to(v.dtype)
        heads = self.attend_gated(q, k.to(v.dtype), v, self.gate(x), bias=bias, scale=1.0)
        return self.proj(heads.flatten(2))


class AggregatedAttention(CosineAttention):
    """Cosine attention over the window of each token and a pooled map, in one softmax.

    Args:
        dim: features of a token.
        heads: attention heads.
        grid: rows and columns in training.
        shrink: sides of the pooled map are those of the map over this.
        shared: the first heads, which always act.
        routed: how many of the others act for a token.
        qkv_bias: whether queries, keys and values have a bias.
        balance_weight: factor of the loss that keeps routed heads in balance.
        measure: rows and columns by which distances are measured; `grid` by default.
        window: side of the window, odd.

    Raises:
        ValueError: the window is even; the map is smaller than `shrink`.

    Source: Shi, 2024, "TransNeXt", arXiv 2311.17132, eqs. (1) to (7); Jin et al., 2024, "MoH",
    arXiv 2410.11842.

    Example:
        >>> layer = AggregatedAttention(16, 4, (4, 6), 2, shared=2, routed=1)
        >>> layer(TokenState(torch.randn(2, 24, 16), (4, 6))).shape
        torch.Size([2, 24, 16])
    """

    def __init__(
        self, dim: int, heads: int, grid: tuple[int, int], shrink: int, *, shared: int, routed: int,
        qkv_bias: bool = True, balance_weight: float = 0.01,
        measure: tuple[int, int] | None = None, window: int = 3,
    ):  # fmt: skip
        super().__init__(dim, heads, shared, routed, qkv_bias, balance_weight)
        if window < 1 or window % 2 == 0:
            raise ValueError(f"window must be odd, got {window}")
        self.shrink, self.window = shrink, window
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.sr = nn.Conv2d(dim, dim, 1)
        self.norm = nn.LayerNorm(dim)
        self.positions = LogOffsetBias(heads, grid, self._pooled(grid), measure)
        slots, narrow = window**2, nn.init.trunc_normal_
        self.relative_pos_bias_local = nn.Parameter(narrow(torch.empty(heads, slots), std=4e-4))
        self.learnable_tokens = nn.Parameter(
            narrow(torch.empty(heads, self.head_dim, slots), std=0.02)
        )
        self.learnable_bias = nn.Parameter(torch.zeros(heads, 1, slots))

    def forward(self, state: TokenState) -> Float[Tensor, "batch tokens dim"]:
        """Attends from each token to its window and the pooled map."""
        x, grid = state.tokens, _grid(state)
        pooled = self._pooled(grid)
        q = F.normalize(self.split(self.q(x), 1)[0], dim=-1)
        k, v = self.split(self.kv(x), 2)
        far = F.adaptive_avg_pool2d(F.gelu(self.sr(state.feature_map)), pooled)
        far_k, far_v = self.split(self.kv(self.norm(far.flatten(2).transpose(1, 2))), 2)
        keys = _in_window(grid, self.window, x.device) + math.prod(pooled)
        heads = self.attend_neighborhood(
            self.stretched(q, keys[:, None]).to(v.dtype),
            F.normalize(k, dim=-1).to(v.dtype),
            v,
            grid,
            halo=self.window // 2,
            mask_padding=True,
            scale=1.0,
            slot_bias=self.relative_pos_bias_local.unflatten(1, (self.window, -1)).to(v.dtype),
            global_k=F.normalize(far_k, dim=-1).to(v.dtype),
            global_v=far_v,
            global_bias=self.positions(grid, pooled).to(v.dtype),
            added=(q @ self.learnable_tokens + self.learnable_bias).to(v.dtype),
        )
        return self.proj((heads * self.gate(x)[..., None].to(heads.dtype)).flatten(2))

    def _pooled(self, grid: tuple[int, int]) -> tuple[int, int]:
        if min(grid) < self.shrink:
            raise ValueError(
                f"a map of {grid[0]}x{grid[1]} cannot be pooled by {self.shrink}; use larger images"
            )
        return grid[0] // self.shrink, grid[1] // self.shrink


def _grid(state: TokenState) -> tuple[int, int]:
    if state.grid is None:
        raise ValueError("cosine attention needs the grid of the tokens, which were thinned out")
    return state.grid


def _in_window(
    grid: tuple[int, int], window: int, device: torch.device
) -> Float[Tensor, " tokens"]:
    """How many places of the map each token's window covers."""
    counts = []
    for size in grid:
        place = torch.arange(size, device=device)
        reach = torch.full_like(place, window // 2)
        counts.append(1 + torch.minimum(place, reach) + torch.minimum(size - 1 - place, reach))
    return (counts[0][:, None] * counts[1]).flatten().float()


def _offsets(
    grid: tuple[int, int], pooled: tuple[int, int], measure: tuple[int, int]
) -> tuple[Float[Tensor, "distinct 2"], Tensor]:
    """All distinct offsets from queries to keys, and which one each pair has."""
    axes = []
    for size, keys, side in zip(grid, pooled, measure, strict=True):
        place = torch.arange(size, dtype=torch.float32, device="cpu")
        centers = F.adaptive_avg_pool1d(place[None], keys)[0]
        offsets = ((place[:, None] - centers) / (side - 1) * 8).double().numpy()
        axes.append(np.unique(offsets.round(9), return_inverse=True))
    (rows, row), (columns, column) = axes
    table = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    row, column = row.reshape(grid[0], -1), column.reshape(grid[1], -1)
    index = row[:, None, :, None] * len(columns) + column[None, :, None, :]
    logarithm = np.sign(table) * np.log2(np.abs(table) + 1) / 3
    return torch.from_numpy(logarithm).float(), torch.from_numpy(index.reshape(-1))
