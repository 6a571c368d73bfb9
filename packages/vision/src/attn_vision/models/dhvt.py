"""DHVT: a vision transformer with convolutions that learns from small data sets.

Source: Lu et al., 2022, "Bridging the Gap Between Vision Transformers and Convolutional Neural
Networks on Small Datasets", arXiv 2210.05958.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from .daff import DynamicAggregationFeedForward
from .head_tokens import HeadInteractedAttention
from .stems import SequentialOverlapEmbed
from .vision_transformer import VisionTransformer, VisionTransformerConfig


@dataclass(frozen=True)
class DHVTConfig(VisionTransformerConfig):
    """Shape of a DHVT; the defaults are DHVT-T for CIFAR with patches of 4. It has no positions.

    Attributes:
        overlapping_stem: convolutions as stem; False cuts plain patches, as an ablation.
        head_tokens: a token per head in the attention; False for plain attention.
        convolutional_mlp: convolutions between the attention layers; False for a plain MLP.
    """

    image_size: int | tuple[int, int] = 32
    patch_size: int = 4
    classes: int = 100
    heads: int = 4
    positions: bool = False
    overlapping_stem: bool = True
    head_tokens: bool = True
    convolutional_mlp: bool = True

    def __post_init__(self):
        """Refuses shapes that cannot be built."""
        super().__post_init__()
        if self.positions:
            raise ValueError("positions must be False: the convolutions tell where a patch is")
        if self.qk_norm:
            raise ValueError("qk_norm is not defined for head tokens")

    def check_sides(self) -> None:
        """Takes images of any size: the last patch may be cut."""
        if not self.overlapping_stem:
            super().check_sides()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.image_sides
        return -(-rows // self.patch_size), -(-columns // self.patch_size)

    def build(self) -> "DHVT":
        """The model of this configuration, untrained."""
        return DHVT(self)


class DHVT(VisionTransformer):
    """Convolutional stem, head tokens in the attention, convolutions between.

    Example:
        >>> import torch
        >>> config = DHVTConfig(16, dim=16, depth=2, classes=5)
        >>> DHVT(config)(torch.randn(2, 3, 14, 24)).shape
        torch.Size([2, 5])
    """

    config: DHVTConfig

    def make_stem(self) -> nn.Module:
        """Overlapping convolutions."""
        c = self.config
        if not c.overlapping_stem:
            return super().make_stem()
        return SequentialOverlapEmbed(c.channels, c.dim, c.patch_size)

    def make_mixer(self, index: int) -> nn.Module:
        """Attention with head tokens."""
        c = self.config
        if not c.head_tokens:
            return super().make_mixer(index)
        return HeadInteractedAttention(
            c.dim, c.heads, qkv_bias=c.qkv_bias, dropout=c.attention_dropout
        )

    def make_mlp(self, index: int) -> nn.Module:
        """Convolutions that rescale the class token."""
        c = self.config
        if not c.convolutional_mlp:
            return super().make_mlp(index)
        return DynamicAggregationFeedForward(c.dim, int(c.dim * c.mlp_ratio))


_LARGE: dict[str, Any] = {"image_size": 224, "patch_size": 16}
VARIANTS = {
    "dhvt_tiny": DHVTConfig(),
    "dhvt_small": DHVTConfig(dim=384, heads=8),
    "dhvt_tiny_patch2": DHVTConfig(patch_size=2),
    "dhvt_small_patch2": DHVTConfig(patch_size=2, dim=384, heads=8),
    "dhvt_tiny_domainnet": DHVTConfig(**_LARGE, classes=345),
    "dhvt_small_domainnet": DHVTConfig(**_LARGE, classes=345, dim=384, heads=6),
    "dhvt_tiny_imagenet": DHVTConfig(**_LARGE, classes=1000, heads=3),
    "dhvt_small_imagenet": DHVTConfig(**_LARGE, classes=1000, dim=384, heads=6),
}
