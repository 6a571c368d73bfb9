"""SpectFormer: spectral gates in the first layers, attention in the later ones.

Source: Patro et al., 2023, "SpectFormer: Frequency and Attention is what you need in a Vision
Transformer", arXiv 2304.06446.
"""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor, nn

from .blocks import Block
from .positions import resize_positions
from .skeleton import ImageConfig
from .spectral_gate import SpectralGate, resize_spectral
from .tokens import TokenState
from .vision_transformer import VisionTransformer, VisionTransformerConfig


@dataclass(frozen=True)
class SpectFormerConfig(VisionTransformerConfig):
    """Shape of a vanilla SpectFormer; the defaults are SpectFormer-T.

    Attributes:
        spectral: blocks with a gate instead of attention, the first ones.
        uniform_drop_path: whether all blocks are skipped at the rate of the last.
    """

    dim: int = 256
    heads: int = 4
    class_token: bool = False
    pool: str = "mean"  # pyright: ignore[reportIncompatibleVariableOverride]
    spectral: int = 4
    uniform_drop_path: bool = False

    def __post_init__(self):
        """Refuses shapes that cannot be built."""
        super().__post_init__()
        if not 0 <= self.spectral <= self.depth:
            raise ValueError(f"spectral must be in [0, depth {self.depth}], got {self.spectral}")
        if self.spectral and self.prefix:
            raise ValueError("spectral gates take patches only: no class token, no registers")

    def build(self) -> "SpectFormer":
        """The model of this configuration, untrained."""
        return SpectFormer(self)


class SpectralBlock(Block):
    """x += mlp(norm2(gate(norm1(x)))): one residual around both."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        del self.drop_path2

    def forward(self, state: TokenState) -> TokenState:
        """Updates the tokens; their layout stays."""
        gated = self.attn(state.with_tokens(self.norm1(state.tokens)))
        change = self.mlp(state.with_tokens(self.norm2(gated)))
        return state.with_tokens(state.tokens + self.drop_path1(change))


class SpectFormer(VisionTransformer):
    """Patches -> blocks of spectral gates -> blocks of attention -> mean over the tokens.

    The gates belong to one grid; `resized` makes a model for images of another size.

    Args:
        config: its shape.

    Example:
        >>> import torch
        >>> config = SpectFormerConfig(16, patch_size=4, classes=5, dim=16, depth=3, spectral=2)
        >>> SpectFormer(config)(torch.randn(2, 3, 16, 16)).shape
        torch.Size([2, 5])
    """

    config: SpectFormerConfig
    antialias = False

    def make_block(self, index: int) -> nn.Module:
        """A block with a gate, then blocks of attention."""
        c = self.config
        if index >= c.spectral:
            return super().make_block(index)
        return SpectralBlock(
            c.dim, SpectralGate(c.dim, c.grid), self.make_mlp(index), norm_eps=c.norm_eps,
            drop_path=self.drop_path_rate(index),
        )  # fmt: skip

    def drop_path_rate(self, index: int) -> float:
        """Rises linearly over the blocks, or is that of the last in all."""
        last = self.config.depth - 1
        return super().drop_path_rate(last if self.config.uniform_drop_path else index)

    def embed(self, images: Float[Tensor, "batch channels height width"]) -> TokenState:
        """The tokens that enter the first block.

        Raises:
            ValueError: the images' channels or sides do not fit the stem or the gates.
        """
        state = super().embed(images)
        if self.config.spectral and state.grid != self.config.grid:
            raise ValueError(other_size(images, self.config))
        return state

    def resized(self, image_size: int | tuple[int, int]) -> "SpectFormer":
        """A model for images of another size, with positions and gates interpolated.

        Raises:
            ValueError: the size is not a multiple of the patches.
        """
        model = SpectFormer(replace(self.config, image_size=image_size))
        model.to(next(self.parameters()))
        state = resized_gates(self, model)
        old, new = self.config.grid, model.config.grid
        if "pos_embed" in state:
            state["pos_embed"] = resize_positions(state["pos_embed"], old, new, antialias=False)
        model.load_state_dict(state)
        return model.train(self.training)


def other_size(images: Tensor, config: ImageConfig) -> str:
    """Why images do not fit gates, and what does."""
    (height, width), built = images.shape[2:], config.image_sides
    return (
        f"the spectral gates were built for images of {built[0]}x{built[1]} pixels, got "
        f"{height}x{width}; model.resized(({height}, {width})) interpolates their weights"
    )


def resized_gates(model: nn.Module, other: nn.Module) -> dict[str, Tensor]:
    """The weights of `model` with its gates interpolated to the grids of those of `other`."""
    state, parts = model.state_dict(), dict(other.named_modules())
    for name, part in model.named_modules():
        other_part = parts.get(name)
        if isinstance(part, SpectralGate) and isinstance(other_part, SpectralGate):
            key = f"{name}.complex_weight"
            state[key] = resize_spectral(state[key], part.grid, other_part.grid)
    return state


VARIANTS = {
    "spectformer_tiny": SpectFormerConfig(),
    "spectformer_xsmall": SpectFormerConfig(dim=384, heads=6),
    "spectformer_small": SpectFormerConfig(dim=384, heads=6, depth=19, drop_path=0.15),
    "spectformer_base": SpectFormerConfig(dim=512, heads=8, depth=19, drop_path=0.25),
}
