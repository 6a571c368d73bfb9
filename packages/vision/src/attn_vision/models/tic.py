"""A classifier of MSA-Conv layers: this package's own, after the idea of TiC.

The paper's classifier could not be obtained; nothing here claims to equal it.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from .blocks import Block
from .msa_conv import MSAConv2d, odd_kernel
from .spectformer_hierarchical import ConvEmbed, ConvMlp
from .staged_transformer import StagedConfig, StagedTransformer
from .tokens import TokenState


@dataclass(frozen=True)
class TicConfig(StagedConfig):
    """Shape of a hierarchical MSA-Conv net; the defaults are `tic_tiny`.

    Attributes:
        stem_dim: channels within the stem.
        heads: attention heads of each stage.
        kernel: side of the windows, odd.
        dilations: of the windows of each stage.
        mlp_ratios: hidden features of each stage's MLP per feature of a token.
        mask_padding: whether positions outside the map are left out of the softmax.
        shift: whether every second block rolls keys and values by a window, see `MSAConv2d`.
        inter_pool: whether the windows also hold positions of the pooled map.
    """

    dims: tuple[int, ...] = (48, 96, 192, 384)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    stem_dim: int = 24
    heads: tuple[int, ...] = (2, 4, 8, 16)
    kernel: int = 5
    dilations: tuple[int, ...] = (1, 1, 1, 1)
    mlp_ratios: tuple[float, ...] = (4, 4, 4, 4)
    mask_padding: bool = False
    shift: bool = False
    inter_pool: bool = False

    def __post_init__(self):
        """Refuses stages that do not match or cannot be built."""
        super().__post_init__()
        self.require_per_stage("heads", "dilations", "mlp_ratios")
        odd_kernel(self.kernel)
        for dim, heads in zip(self.dims, self.heads, strict=True):
            if dim % heads:
                raise ValueError(f"dims {self.dims} are not divisible by heads {self.heads}")

    def build(self) -> "Tic":
        """The model of this configuration, untrained."""
        return Tic(self)


class WindowMixer(nn.Module):
    """`MSAConv2d` over the grid of the tokens, and a linear map of its heads."""

    def __init__(self, attention: MSAConv2d, dim: int):
        super().__init__()
        self.attention, self.proj = attention, nn.Linear(dim, dim)

    def forward(self, state: TokenState) -> Float[Tensor, "batch tokens dim"]:
        """The mixed tokens."""
        return self.proj(self.attention(state.feature_map).flatten(2).transpose(1, 2))


class Tic(StagedTransformer):
    """Convolutional stem -> stages of windowed attention -> mean of the last map -> class scores.

    It has no positions and takes images of any size.

    Args:
        config: its shape.

    Source: the operator: Zhang et al., 2023, arXiv 2310.04134; the net is this package's.

    Example:
        >>> import torch
        >>> config = TicConfig(dims=(8, 16), depths=(1, 1), heads=(2, 4), dilations=(1, 1),
        ...                    mlp_ratios=(2, 2), stem_dim=4, classes=5)
        >>> Tic(config)(torch.randn(2, 3, 19, 32)).shape
        torch.Size([2, 5])
    """

    config: TicConfig

    def make_embed(self, stage: int) -> nn.Module:
        """A strided convolution, after the stem in the first stage."""
        c = self.config
        if stage == 0:
            return ConvEmbed(c.channels, c.dims[0], c.stem_dim)
        return ConvEmbed(c.dims[stage - 1], c.dims[stage])

    def make_block(self, stage: int, index: int) -> nn.Module:
        """Windowed attention and an MLP with a convolution."""
        c, dim = self.config, self.config.dims[stage]
        attention = MSAConv2d(
            dim, c.heads[stage], c.kernel, c.dilations[stage], mask_padding=c.mask_padding,
            shift=c.kernel if c.shift and index % 2 else 0, inter_pool=c.inter_pool,
        )  # fmt: skip
        return Block(
            dim, WindowMixer(attention, dim), ConvMlp(dim, int(dim * c.mlp_ratios[stage])),
            drop_path=self.drop_path_rate(stage, index),
        )  # fmt: skip


VARIANTS = {
    "tic_tiny": TicConfig(),
    "tic_small": TicConfig(
        dims=(64, 128, 256, 512), heads=(2, 4, 8, 16), depths=(2, 2, 12, 2), stem_dim=32
    ),
}
