"""The plain vision transformer, ViT and DeiT, and the skeleton of its variants."""

from dataclasses import dataclass
from typing import Literal

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from .blocks import Block, Mlp, SelfAttention
from .stems import PatchEmbed
from .tokens import TokenState


@dataclass(frozen=True)
class VisionTransformerConfig:
    """Shape of a vision transformer; the defaults are DeiT-Ti.

    Attributes:
        image_size: rows and columns of the training images, or one number for both, in pixels.
        patch_size: side of a patch, in pixels.
        channels: colours of an image.
        classes: outputs of each head; 0 for none: the model then returns features.
        dim: features of a token.
        depth: blocks.
        heads: attention heads of a block.
        mlp_ratio: hidden features of the MLP per feature of a token.
        qkv_bias: whether queries, keys and values have a bias.
        distilled: whether a second token with its own head learns from a teacher.
        layer_scale: initial scale of the residual branches; None for no scale.
        drop_path: probability of skipping a residual branch in the last block, in training; it
            rises linearly from 0 in the first.
        dropout: probability of dropping a feature after the positions and in the MLP, in training.
        attention_dropout: probability of dropping an attention weight, in training.
        norm_eps: epsilon of the layer norms.
        pool: what the head reads: the "class" token or the "mean" of the patches.
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    channels: int = 3
    classes: int = 1000
    dim: int = 192
    depth: int = 12
    heads: int = 3
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    distilled: bool = False
    layer_scale: float | None = None
    drop_path: float = 0.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    norm_eps: float = 1e-6
    pool: Literal["class", "mean"] = "class"

    def __post_init__(self):
        """Refuses shapes that cannot be built."""
        if isinstance(self.image_size, list):  # as JSON and YAML give it
            object.__setattr__(self, "image_size", tuple(self.image_size))
        if any(side % self.patch_size for side in self.image_sides):
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by heads {self.heads}")
        if self.pool not in ("class", "mean"):
            raise ValueError(f"pool must be 'class' or 'mean', got {self.pool!r}")
        if self.distilled and self.pool == "mean":
            raise ValueError("distilled needs pool='class': the heads read their own tokens")

    @property
    def image_sides(self) -> tuple[int, int]:
        """Rows and columns of the training images, in pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.image_sides
        return rows // self.patch_size, columns // self.patch_size


class VisionTransformer(nn.Module, PyTorchModelHubMixin):
    """Images -> patches and class token -> blocks -> class scores.

    Images of another size than the configured one get positions resized to their grid (bicubic).
    Variants override `make_stem` and `make_block`.

    Args:
        config: its shape.

    Source: Dosovitskiy et al., 2021, "An Image is Worth 16x16 Words", arXiv 2010.11929, eqs.
    (1)-(4); Touvron et al., 2021, "Training data-efficient image transformers & distillation
    through attention", arXiv 2012.12877.

    Example:
        >>> import torch
        >>> config = VisionTransformerConfig(16, patch_size=4, classes=5, dim=24, depth=2)
        >>> VisionTransformer(config)(torch.randn(2, 3, 16, 16)).shape
        torch.Size([2, 5])
    """

    no_weight_decay = frozenset({"cls_token", "dist_token", "pos_embed"})

    def __init__(self, config: VisionTransformerConfig):
        super().__init__()
        self.config = config
        self.prefix = 2 if config.distilled else 1
        rows, columns = config.grid
        self.patch_embed = self.make_stem()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        if config.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.prefix + rows * columns, config.dim))
        self.pos_drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(map(self.make_block, range(config.depth)))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.head = nn.Linear(config.dim, config.classes) if config.classes else nn.Identity()
        if config.distilled:
            has_head = config.classes > 0
            self.head_dist = nn.Linear(config.dim, config.classes) if has_head else nn.Identity()
        self.apply(_init_linear)
        for name in self.no_weight_decay & dict(self.named_parameters()).keys():
            nn.init.trunc_normal_(self.get_parameter(name), std=0.02)

    def make_stem(self) -> nn.Module:
        """Builds what turns images into a `TokenState`."""
        return PatchEmbed(self.config.channels, self.config.dim, self.config.patch_size)

    def make_block(self, index: int) -> nn.Module:
        """Builds block number `index`, a map from `TokenState` to `TokenState`."""
        c = self.config
        return Block(
            c.dim,
            SelfAttention(c.dim, c.heads, qkv_bias=c.qkv_bias, dropout=c.attention_dropout),
            Mlp(c.dim, int(c.dim * c.mlp_ratio), c.dropout),
            norm_eps=c.norm_eps,
            layer_scale=c.layer_scale,
            drop_path=c.drop_path * index / max(c.depth - 1, 1),
        )

    def embed(self, images: Float[Tensor, "batch channels height width"]) -> TokenState:
        """The tokens that enter the first block.

        Raises:
            ValueError: the images' channels or sides do not fit the stem.
        """
        state = self.patch_embed(images)
        batch = state.tokens.shape[0]
        prefix = [self.cls_token, self.dist_token] if self.config.distilled else [self.cls_token]
        tokens = torch.cat([*(p.expand(batch, -1, -1) for p in prefix), state.tokens], 1)
        positions = self.pos_embed
        if state.grid != self.config.grid:
            positions = resample_abs_pos_embed(
                positions, list(state.grid), list(self.config.grid), self.prefix
            )
        return TokenState(self.pos_drop(tokens + positions), state.grid, self.prefix)

    def features(self, images: Float[Tensor, "batch channels height width"]) -> TokenState:
        """The tokens after the last block and norm."""
        state = self.embed(images)
        for block in self.blocks:
            state = block(state)
        return state.with_tokens(self.norm(state.tokens))

    def head_scores(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch classes"], ...]:
        """The scores of each head apart: the class head, then the distillation head if any."""
        state = self.features(images)
        if self.config.pool == "mean":
            return (self.head(state.patches.mean(1)),)
        scores = (self.head(state.tokens[:, 0]),)
        return (*scores, self.head_dist(state.tokens[:, 1])) if self.config.distilled else scores

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Class scores, the mean over the heads; pooled features where there are no classes.

        Raises:
            ValueError: the images' channels or sides do not fit the stem.
        """
        scores = self.head_scores(images)
        return sum(scores[1:], scores[0]) / len(scores)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
