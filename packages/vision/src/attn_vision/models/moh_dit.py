"""MoH-DiT: a diffusion transformer whose attention heads act token by token.

Source: Jin et al., 2024, "MoH: Multi-Head Attention as Mixture-of-Head Attention", arXiv
2410.11842, on Peebles and Xie, 2023, "Scalable Diffusion Models with Transformers", arXiv
2212.09748.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from core_attn import MixtureOfHeadAttention

from .skeleton import ImageConfig, ImageModel
from .stems import PatchEmbed

_WAVES = 256


@dataclass(frozen=True)
class MoHDiTConfig(ImageConfig):
    """Shape of a MoH-DiT; the defaults are MoH-DiT-S/2 with 90% of the heads acting.

    Attributes:
        image_size: rows and columns of the latent maps.
        channels: of the latent maps.
        classes: that images are conditioned on.
        patch_size: side of a patch.
        dim: features of a token.
        head_dim: features of a head.
        heads: attention heads of each block; their number is the depth.
        shared: heads of each block that always act.
        routed: how many of the others act for a token.
        mlp_ratio: hidden features of the MLP per feature of a token.
        label_dropout: probability of training a sample without its class.
        learn_sigma: whether variances are predicted too, in as many further channels.
        balance_weight: factor of the mean of the layers' balance losses.
    """

    image_size: int | tuple[int, int] = 32
    channels: int = 4
    patch_size: int = 2
    dim: int = 384
    head_dim: int = 64
    heads: tuple[int, ...] = (6,) * 12
    shared: tuple[int, ...] = (3,) * 8 + (6,) * 4
    routed: tuple[int, ...] = (2,) * 8 + (0,) * 4
    mlp_ratio: float = 4.0
    label_dropout: float = 0.1
    learn_sigma: bool = True
    balance_weight: float = 0.01

    def __post_init__(self):
        """Refuses lists of different lengths, and sizes that cannot be cut."""
        super().__post_init__()
        for name in ("shared", "routed"):
            if len(getattr(self, name)) != self.depth:
                raise ValueError(
                    f"{name} must have one entry per block ({self.depth}, by heads), got "
                    f"{len(getattr(self, name))}"
                )
        for heads, shared, routed in zip(self.heads, self.shared, self.routed, strict=True):
            self.check_routed(heads, shared, routed)
        if any(side % self.patch_size for side in self.image_sides):
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if self.dim % 4:
            raise ValueError(f"dim must be a multiple of 4, got {self.dim}")

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.heads)

    @property
    def active_share(self) -> float:
        """The share of heads that act, over all blocks."""
        return (sum(self.shared) + sum(self.routed)) / sum(self.heads)

    def build(self) -> "MoHDiT":
        """The model of this configuration, untrained."""
        return MoHDiT(self)


def sine_positions(grid: tuple[int, int], dim: int) -> Float[Tensor, "1 tokens dim"]:
    """Fixed positions: sines and cosines of the column, then of the row.

    Example:
        >>> sine_positions((2, 3), 8).shape
        torch.Size([1, 6, 8])
    """
    rates = 10_000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    waves = [torch.arange(side, dtype=torch.float64)[:, None] * rates for side in grid]
    rows, columns = (torch.cat([wave.sin(), wave.cos()], -1) for wave in waves)
    rows = rows[:, None].expand(*grid, -1)
    return torch.cat([columns.expand(*grid, -1), rows], -1).flatten(0, 1)[None].float()


class StepEmbed(nn.Module):
    """Waves of the diffusion step, cosines first, through an MLP."""

    def __init__(self, dim: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_WAVES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, steps: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """One vector per step."""
        half = _WAVES // 2
        place = torch.arange(half, dtype=torch.float32, device=steps.device)
        angle = steps[:, None].float() * torch.exp(-math.log(10_000) * place / half)
        waves = torch.cat([angle.cos(), angle.sin()], -1)
        return self.mlp(waves.to(self.mlp[0].get_parameter("weight")))


class LabelEmbed(nn.Module):
    """A vector per class, and one for no class."""

    def __init__(self, classes: int, dim: int, dropout: float):
        super().__init__()
        self.classes, self.dropout = classes, dropout
        self.embedding_table = nn.Embedding(classes + (dropout > 0), dim)

    def forward(self, labels: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """One vector per label; in training some labels are taken away."""
        if self.training and self.dropout > 0:
            away = torch.rand(labels.shape, device=labels.device) < self.dropout
            labels = torch.where(away, self.classes, labels)
        return self.embedding_table(labels)


class DiTBlock(nn.Module):
    """Two residual branches, moved, scaled and gated by the condition (adaLN-Zero)."""

    def __init__(self, attention: nn.Module, dim: int, hidden: int):
        super().__init__()
        self.norm1, self.norm2 = (
            nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False) for _ in range(2)
        )
        self.attn = attention
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, dim)
        )
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], condition: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """The new tokens."""
        move1, scale1, gate1, move2, scale2, gate2 = self.adaLN_modulation(condition)[
            :, None
        ].chunk(6, -1)
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + move1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + move2)


class FinalLayer(nn.Module):
    """The last norm, moved and scaled by the condition, and a linear map to pixels."""

    def __init__(self, dim: int, pixels: int):
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(dim, pixels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], condition: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch tokens pixels"]:
        """The pixels of each patch."""
        move, scale = self.adaLN_modulation(condition)[:, None].chunk(2, -1)
        return self.linear(self.norm_final(x) * (1 + scale) + move)


class MoHDiT(ImageModel):
    """Noisy latents, step and class -> predicted noise (and variance).

    Args:
        config: its shape.

    Raises:
        ValueError: in `forward`, maps of other channels or sides that cannot be cut.

    Example:
        >>> config = MoHDiTConfig(8, dim=16, head_dim=4, heads=(4,), shared=(2,), routed=(1,),
        ...                       classes=3)
        >>> latents, steps, labels = config.build().example_inputs(2)
        >>> MoHDiT(config)(latents, steps, labels).shape
        torch.Size([2, 8, 8, 8])
    """

    config: MoHDiTConfig
    pos_embed: Tensor
    x_embedder: PatchEmbed

    def __init__(self, config: MoHDiTConfig):
        super().__init__(config)
        c = config
        self.x_embedder = PatchEmbed(c.channels, c.dim, c.patch_size)
        self.t_embedder = StepEmbed(c.dim)
        self.y_embedder = LabelEmbed(c.classes, c.dim, c.label_dropout)
        grid = (c.image_sides[0] // c.patch_size, c.image_sides[1] // c.patch_size)
        self.register_buffer("pos_embed", sine_positions(grid, c.dim))
        gated = max(sum(map(bool, c.routed)), 1)
        self.blocks = nn.ModuleList(
            DiTBlock(
                MixtureOfHeadAttention(
                    c.dim, heads, shared, routed, head_dim=c.head_dim,
                    balance_weight=c.balance_weight / gated,
                ),
                c.dim, int(c.dim * c.mlp_ratio),
            )
            for heads, shared, routed in zip(c.heads, c.shared, c.routed, strict=True)
        )  # fmt: skip
        pixels = c.patch_size**2 * c.channels * (2 if c.learn_sigma else 1)
        self.final_layer = FinalLayer(c.dim, pixels)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Xavier everywhere, but steps and labels narrow and all gates and the last layer zero."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        stem = self.x_embedder.proj
        nn.init.xavier_uniform_(stem.weight.flatten(1))
        if stem.bias is not None:
            nn.init.zeros_(stem.bias)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for layer in (self.t_embedder.mlp[0], self.t_embedder.mlp[2]):
            nn.init.normal_(layer.get_parameter("weight"), std=0.02)
        last = [
            part.get_submodule("adaLN_modulation.1") for part in (*self.blocks, self.final_layer)
        ]
        for layer in (*last, self.final_layer.linear):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        latents: Float[Tensor, "batch channels height width"],
        steps: Float[Tensor, " batch"],
        labels: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch outputs height width"]:
        """The noise, then the variance's logits if they are learned.

        Args:
            latents: noisy maps.
            steps: how far along the diffusion they are.
            labels: their classes; `classes` itself for none.
        """
        state = self.x_embedder(latents)
        positions = self.pos_embed
        if latents.shape[2:] != self.config.image_sides:
            positions = sine_positions(state.grid, self.config.dim).to(positions)
        x = state.tokens + positions
        condition = self.t_embedder(steps) + self.y_embedder(labels)
        for block in self.blocks:
            x = block(x, condition)
        x, patch = self.final_layer(x, condition), self.config.patch_size
        return rearrange(x, "b (h w) (p q c) -> b c (h p) (w q)", h=state.grid[0], p=patch, q=patch)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Noise, steps and labels."""
        c = self.config
        labels = torch.arange(batch) % max(c.classes, 1)
        return (*super().example_inputs(batch), torch.linspace(0, 999, batch), labels)


def _each(*counts: tuple[int, int]) -> tuple[int, ...]:
    return tuple(value for value, times in counts for _ in range(times))


_XL: dict[str, Any] = {"dim": 1152, "head_dim": 72, "heads": _each((8, 9), (16, 10), (24, 9))}
_L: dict[str, Any] = {"dim": 1024, "heads": _each((8, 8), (16, 8), (24, 8))}
_B: dict[str, Any] = {"dim": 768, "heads": (12,) * 12}
VARIANTS = {
    "moh_dit_xl_2_90": MoHDiTConfig(
        **_XL, shared=_each((8, 9), (16, 19)), routed=_each((0, 19), (3, 9))
    ),
    "moh_dit_xl_2_75": MoHDiTConfig(
        **_XL, shared=_each((8, 9), (10, 10), (14, 9)), routed=_each((0, 9), (2, 19))
    ),
    "moh_dit_l_2_90": MoHDiTConfig(
        **_L, shared=_each((8, 8), (16, 16)), routed=_each((0, 16), (3, 8))
    ),
    "moh_dit_l_2_75": MoHDiTConfig(
        **_L, shared=_each((8, 16), (12, 8)), routed=_each((0, 8), (4, 16))
    ),
    "moh_dit_b_2_90": MoHDiTConfig(
        **_B, shared=_each((6, 5), (7, 5), (12, 2)), routed=_each((4, 10), (0, 2))
    ),
    "moh_dit_b_2_75": MoHDiTConfig(
        **_B, shared=_each((4, 2), (6, 8), (12, 2)), routed=_each((2, 2), (3, 8), (0, 2))
    ),
    "moh_dit_s_2_90": MoHDiTConfig(),
    "moh_dit_s_2_75": MoHDiTConfig(
        shared=_each((2, 2), (3, 8), (6, 2)), routed=_each((1, 6), (2, 4), (0, 2))
    ),
}
