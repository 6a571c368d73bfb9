"""ConViT: a vision transformer whose first layers start out as convolutions.

Source: d'Ascoli et al., 2021, "ConViT: Improving Vision Transformers with Soft Convolutional
Inductive Biases", arXiv 2103.10697.
"""

from dataclasses import dataclass

from torch import nn

from .gated_positional import GatedPositionalAttention
from .tokens import TokenState
from .vision_transformer import VisionTransformer, VisionTransformerConfig


@dataclass(frozen=True)
class ConViTConfig(VisionTransformerConfig):
    """Shape of a ConViT; the defaults are ConViT-Ti.

    Attributes:
        local_layers: blocks with positional gates; the class token enters after them.
        locality_strength: how narrow the heads' windows are at the start.
    """

    heads: int = 4
    qkv_bias: bool = False
    prefix_positions: bool = False
    local_layers: int = 10
    locality_strength: float = 1.0

    def __post_init__(self):
        """Refuses shapes that cannot be built."""
        super().__post_init__()
        if not 0 <= self.local_layers < self.depth:
            raise ValueError(
                f"local_layers must be smaller than depth {self.depth} and at least 0, got "
                f"{self.local_layers}: the class token enters after them"
            )
        if self.prefix_positions:
            raise ValueError("prefix_positions must be False: the class token has no position")
        if self.qk_norm:
            raise ValueError("qk_norm is not defined for positional gates")

    def build(self) -> "ConViT":
        """The model of this configuration, untrained."""
        return ConViT(self)


class ConViT(VisionTransformer):
    """Positional gates in the first blocks, then a class token and plain attention.

    Example:
        >>> import torch
        >>> config = ConViTConfig(16, patch_size=4, dim=16, depth=3, local_layers=2, classes=5)
        >>> ConViT(config)(torch.randn(2, 3, 16, 24)).shape
        torch.Size([2, 5])
    """

    config: ConViTConfig
    antialias = False  # as in DeiT, from which the official code comes

    def make_mixer(self, index: int) -> nn.Module:
        """Positional gates in the local layers, self attention after them."""
        c = self.config
        if index >= c.local_layers:
            return super().make_mixer(index)
        return GatedPositionalAttention(
            c.dim, c.heads, qkv_bias=c.qkv_bias, locality_strength=c.locality_strength,
            dropout=c.attention_dropout,
        )  # fmt: skip

    def embed(self, images) -> TokenState:
        """The patches with their positions, without a class token."""
        state = self.add_positions(self.patch_embed(images))
        return state.with_tokens(self.norm_pre(self.pos_drop(state.tokens)))

    def features(self, images) -> TokenState:
        """The tokens after the last block and norm."""
        state = self.embed(images)
        for index, block in enumerate(self.blocks):
            if index == self.config.local_layers:
                state = self.add_prefix(state)
            state = block(state)
        return state.with_tokens(self.norm(state.tokens))


VARIANTS = {
    f"convit_{name}": ConViTConfig(dim=width * heads, heads=heads)
    for width, plus in ((48, ""), (64, "_plus"))
    for name, heads in (("tiny" + plus, 4), ("small" + plus, 9), ("base" + plus, 16))
}
