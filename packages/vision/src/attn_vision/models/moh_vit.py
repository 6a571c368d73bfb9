"""MoH-ViT: a hierarchical model whose attention heads act token by token.

Source: Jin et al., 2024, "MoH: Multi-Head Attention as Mixture-of-Head Attention", arXiv
2410.11842, on Shi, 2024, "TransNeXt", arXiv 2311.17132.
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import Block
from .cosine_attention import AggregatedAttention, GlobalCosineAttention
from .staged_transformer import StagedConfig, StagedTransformer, ToMap
from .tokens import TokenState

_PER_STAGE = ("heads", "mlp_ratios", "shrinks", "shared", "routed")


@dataclass(frozen=True)
class MoHViTConfig(StagedConfig):
    """Shape of a MoH-ViT; the defaults are MoH-ViT-S with 80% of the heads acting.

    Attributes:
        patch_size: step of the first stage, in pixels; later stages halve the map.
        heads: attention heads of each stage.
        mlp_ratios: width of each stage's MLP, before a third of it is saved by its gate.
        shrinks: by how much the map is pooled for the keys; 1 for attention over all tokens.
        shared: heads of each stage that always act.
        routed: how many of the others act for a token.
        qkv_bias: whether queries, keys and values have a bias.
        norm_eps: epsilon of the layer norms in the blocks and after the stages.
        window: side of the window that a token sees where the stage pools, odd.
        pretrain_size: rows and columns of the images by which distances are measured, in pixels,
            or one number for both; those of `image_size` by default.
        balance_weight: factor of the mean of the layers' balance losses.
    """

    dims: tuple[int, ...] = (72, 144, 288, 576)
    depths: tuple[int, ...] = (5, 5, 22, 5)
    patch_size: int = 4
    heads: tuple[int, ...] = (3, 6, 12, 24)
    mlp_ratios: tuple[float, ...] = (8, 8, 4, 4)
    shrinks: tuple[int, ...] = (8, 4, 2, 1)
    shared: tuple[int, ...] = (3, 6, 3, 8)
    routed: tuple[int, ...] = (0, 0, 6, 12)
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    window: int = 3
    pretrain_size: int | tuple[int, int] | None = None
    balance_weight: float = 0.01

    def __post_init__(self):
        """Refuses stages that do not match."""
        super().__post_init__()
        self.require_per_stage(*_PER_STAGE)
        for heads, shared, routed in zip(self.heads, self.shared, self.routed, strict=True):
            self.check_routed(heads, shared, routed)

    def grid(self, stage: int) -> tuple[int, int]:
        """Rows and columns of a stage's map, by the overlapping convolutions before it."""
        return self._grid(stage, self.image_size)

    def measure(self, stage: int) -> tuple[int, int]:
        """Rows and columns by which a stage measures distances."""
        return self._grid(stage, self.pretrain_size or self.image_size)

    def _grid(self, stage: int, size: int | tuple[int, int]) -> tuple[int, int]:
        step = self.patch_size * 2**stage
        rows, columns = (size, size) if isinstance(size, int) else size
        return -(-rows // step), -(-columns // step)

    @property
    def active_share(self) -> float:
        """The share of heads that act, over all blocks."""
        stages = zip(self.depths, self.shared, self.routed, strict=True)
        acting = sum(depth * (shared + routed) for depth, shared, routed in stages)
        every = zip(self.depths, self.heads, strict=True)
        return acting / sum(depth * heads for depth, heads in every)

    def build(self) -> "MoHViT":
        """The model of this configuration, untrained."""
        return MoHViT(self)


class OverlapEmbed(nn.Module):
    """An overlapping convolution and a layer norm.

    Args:
        channels: of the map that comes in.
        dim: features of a token.
        kernel: side of the convolution, odd.
        stride: its step.

    Example:
        >>> import torch
        >>> OverlapEmbed(3, 8, kernel=7, stride=4)(torch.randn(1, 3, 18, 32)).grid
        (5, 8)
    """

    def __init__(self, channels: int, dim: int, *, kernel: int, stride: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> TokenState:
        """One token per step."""
        channels = self.proj.in_channels
        if images.dim() != 4 or images.shape[1] != channels:
            raise ValueError(
                f"images must be (batch, {channels}, height, width), got {tuple(images.shape)}"
            )
        x = self.proj(images)
        grid = (x.shape[2], x.shape[3])
        return TokenState(self.norm(x.flatten(2).transpose(1, 2)), grid)


class ConvolutionalGate(nn.Module):
    """ConvGLU: a gate from a depth-wise convolution, times a linear map.

    Args:
        dim: features of a token.
        hidden: features between.

    Source: Shi, 2024, "TransNeXt", arXiv 2311.17132, eq. (8).

    Example:
        >>> import torch
        >>> ConvolutionalGate(8, hidden=10)(TokenState(torch.randn(1, 6, 8), (2, 3))).shape
        torch.Size([1, 6, 8])
    """

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, state: TokenState) -> Float[Tensor, "batch tokens dim"]:
        """The new features."""
        gate, value = self.fc1(state.tokens).chunk(2, -1)
        gate = self.dwconv(state.with_tokens(gate).feature_map).flatten(2).transpose(1, 2)
        return self.fc2(F.gelu(gate) * value)


class MoHViT(StagedTransformer):
    """Four stages of cosine attention with gated heads.

    Example:
        >>> import torch
        >>> config = MoHViTConfig(
        ...     64, dims=(8, 16), depths=(1, 1), heads=(2, 4), mlp_ratios=(2, 2), shrinks=(2, 1),
        ...     shared=(2, 1), routed=(0, 2), classes=5,
        ... )
        >>> MoHViT(config)(torch.randn(2, 3, 64, 96)).shape
        torch.Size([2, 5])
    """

    config: MoHViTConfig
    no_weight_decay = frozenset(
        {"*query_embedding", "*relative_pos_bias_local", "*positions.fc*", "*temperature"}
    )

    def make_embed(self, stage: int) -> nn.Module:
        """An overlapping convolution."""
        c = self.config
        if stage == 0:
            kernel = 2 * c.patch_size - 1
            return OverlapEmbed(c.channels, c.dims[0], kernel=kernel, stride=c.patch_size)
        return OverlapEmbed(c.dims[stage - 1], c.dims[stage], kernel=3, stride=2)

    def make_block(self, stage: int, index: int) -> nn.Module:
        """Cosine attention, aggregated where the stage pools, and a convolutional gate."""
        c, dim = self.config, self.config.dims[stage]
        gated = sum(d for d, routed in zip(c.depths, c.routed, strict=True) if routed)
        gates = {
            "shared": c.shared[stage],
            "routed": c.routed[stage],
            "qkv_bias": c.qkv_bias,
            "balance_weight": c.balance_weight / max(gated, 1),
            "measure": c.measure(stage),
        }
        if c.shrinks[stage] == 1:
            mixer = GlobalCosineAttention(dim, c.heads[stage], c.grid(stage), **gates)
        else:
            mixer = AggregatedAttention(
                dim, c.heads[stage], c.grid(stage), c.shrinks[stage], window=c.window, **gates
            )
        hidden = int(2 * int(dim * c.mlp_ratios[stage]) / 3)
        return Block(
            dim, mixer, ConvolutionalGate(dim, hidden), norm_eps=c.norm_eps,
            drop_path=self.drop_path_rate(stage, index),
        )  # fmt: skip

    def make_norm(self, stage: int) -> nn.Module:
        """A layer norm after each stage."""
        return ToMap(self.config.dims[stage], self.config.norm_eps)


_BASE: dict[str, Any] = {
    "dims": (96, 192, 384, 768),
    "depths": (5, 5, 23, 5),
    "heads": (4, 8, 16, 32),
}
VARIANTS = {
    "moh_vit_small_80": MoHViTConfig(),
    "moh_vit_small_75": MoHViTConfig(shared=(3, 6, 3, 4)),
    "moh_vit_base_75": MoHViTConfig(**_BASE, shared=(4, 8, 4, 5), routed=(0, 0, 8, 16)),
    "moh_vit_base_50": MoHViTConfig(**_BASE, shared=(2, 2, 2, 4), routed=(2, 4, 6, 8)),
}
