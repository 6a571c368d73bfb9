"""The plain vision transformer, ViT and DeiT, and the skeleton of its variants."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core_attn import Dropout

from .attention_pool import AttentionPool
from .blocks import Block, Mlp, SelfAttention
from .positions import resize_positions
from .skeleton import ImageConfig, ImageModel
from .stems import PatchEmbed
from .tokens import TokenState

POOLS = ("class", "mean", "max", "mean_max", "map")


@dataclass(frozen=True)
class VisionTransformerConfig(ImageConfig):
    """Shape of a vision transformer; the defaults are DeiT-Ti.

    Attributes:
        patch_size: side of a patch, in pixels.
        dim: features of a token.
        depth: blocks.
        heads: attention heads of a block.
        mlp_ratio: hidden features of the MLP per feature of a token.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether each head's queries and keys pass a layer norm.
        class_token: whether a token without a patch gathers what the head reads.
        distilled: whether a second token with its own head learns from a teacher.
        registers: further tokens without a patch that nothing reads.
        positions: whether tokens get learned positions.
        prefix_positions: whether class token, distillation token and registers get one too.
        pre_norm: whether a layer norm stands before the first block; the stem then has no bias.
        head_norm: whether the norm stands after pooling instead of before.
        layer_scale: initial scale of the residual branches; None for no scale.
        dropout: probability of dropping a feature after the positions, after an attention layer and
            in the MLP, in training.
        attention_dropout: probability of dropping an attention weight, in training.
        norm_eps: epsilon of the layer norms.
        pool: what the head reads: the "class" token; "mean" or "max" of the patches, or
            "mean_max", the average of both; or "map", what a learned query gathers of them.
        representation: features of a linear map and a tanh between pooling and head; 0 for none.
        head_dropout: probability of dropping a feature that the head reads, in training.
    """

    patch_size: int = 16
    dim: int = 192
    depth: int = 12
    heads: int = 3
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    qk_norm: bool = False
    class_token: bool = True
    distilled: bool = False
    registers: int = 0
    positions: bool = True
    prefix_positions: bool = True
    pre_norm: bool = False
    head_norm: bool = False
    layer_scale: float | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    norm_eps: float = 1e-6
    pool: Literal["class", "mean", "max", "mean_max", "map"] = "class"
    representation: int = 0
    head_dropout: float = 0.0

    def __post_init__(self):
        """Refuses shapes that cannot be built."""
        super().__post_init__()
        self.check_sides()
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by heads {self.heads}")
        if self.pool not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {self.pool!r}")
        if self.pool == "class" and not self.class_token:
            raise ValueError("pool 'class' needs class_token; without it the head reads the 'mean'")
        if self.distilled and self.pool != "class":
            raise ValueError("distilled needs pool='class': the heads read their own tokens")
        if self.representation < 0 or (self.representation and self.distilled):
            raise ValueError(
                f"representation must be at least 0, and 0 where distilled, got "
                f"{self.representation}"
            )

    def check_sides(self) -> None:
        """Refuses images that cannot be cut into patches."""
        if any(side % self.patch_size for side in self.image_sides):
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.image_sides
        return rows // self.patch_size, columns // self.patch_size

    @property
    def prefix(self) -> int:
        """Number of tokens in front of the patches."""
        return self.class_token + self.distilled + self.registers

    def per_block(self, name: str) -> tuple:
        """A field's value for each block, where it has one for all or one each.

        Raises:
            ValueError: it has another number of values.
        """
        values = getattr(self, name)
        if len(values) not in (1, self.depth):
            raise ValueError(
                f"{name} must have 1 value or one per block ({self.depth}), got {len(values)}"
            )
        return values * self.depth if len(values) == 1 else values

    def build(self) -> "VisionTransformer":
        """The model of this configuration, untrained."""
        return VisionTransformer(self)


class VisionTransformer(ImageModel):
    """Images -> patches and class token -> blocks -> class scores.

    Images of another size than the configured one get positions resized to their grid (bicubic).
    Variants override what differs: `make_stem`, `make_positions`, `make_block`, `make_head`,
    `embed`, `init_weights`.

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

    config: VisionTransformerConfig
    no_weight_decay = frozenset({"cls_token", "dist_token", "reg_token", "pos_embed", "*latent"})
    antialias = True  # as timm resizes positions

    def __init__(self, config: VisionTransformerConfig):
        super().__init__(config)
        c = config
        self.prefix = c.prefix
        self.patch_embed = self.make_stem()
        if c.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, c.dim))
        if c.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, c.dim))
        if c.registers:
            self.reg_token = nn.Parameter(torch.zeros(1, c.registers, c.dim))
        self.pos_embed = self.make_positions()
        self.pos_drop = Dropout(c.dropout)
        self.norm_pre = nn.LayerNorm(c.dim, eps=c.norm_eps) if c.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(map(self.make_block, range(c.depth)))
        norm = nn.LayerNorm(c.dim, eps=c.norm_eps)
        self.norm, self.fc_norm = (nn.Identity(), norm) if c.head_norm else (norm, nn.Identity())
        if c.pool == "map":
            self.attn_pool = AttentionPool(c.dim, c.heads, c.mlp_ratio, c.norm_eps)
        self.pre_logits = nn.Sequential()
        if c.representation:
            self.pre_logits.add_module("fc", nn.Linear(c.dim, c.representation))
            self.pre_logits.add_module("act", nn.Tanh())
        self.head_drop = Dropout(c.head_dropout)
        self.head = self.make_head()
        if c.distilled:
            self.head_dist = self.make_head()
        self.init_weights()

    def make_stem(self) -> nn.Module:
        """Builds what turns images into a `TokenState`."""
        c = self.config
        return PatchEmbed(c.channels, c.dim, c.patch_size, bias=not c.pre_norm)

    def make_positions(self) -> nn.Parameter | None:
        """Makes the learned positions of the configured grid; None where there are none."""
        c = self.config
        if not c.positions:
            return None
        prefix = self.prefix if c.prefix_positions else 0
        return nn.Parameter(torch.zeros(1, prefix + c.grid[0] * c.grid[1], c.dim))

    def make_block(self, index: int) -> nn.Module:
        """Builds block number `index`, a map from `TokenState` to `TokenState`."""
        c = self.config
        return Block(
            c.dim,
            self.make_mixer(index),
            self.make_mlp(index),
            norm_eps=c.norm_eps,
            layer_scale=c.layer_scale,
            dropout=c.dropout,
            drop_path=self.drop_path_rate(index),
        )

    def make_mixer(self, index: int) -> nn.Module:
        """Builds what mixes the tokens in block number `index`."""
        c = self.config
        return SelfAttention(
            c.dim, c.heads, qkv_bias=c.qkv_bias, qk_norm=c.qk_norm, norm_eps=c.norm_eps,
            dropout=c.attention_dropout,
        )  # fmt: skip

    def make_mlp(self, index: int) -> nn.Module:
        """Builds what acts on each token in block number `index`."""
        c = self.config
        return Mlp(c.dim, int(c.dim * c.mlp_ratio), c.dropout)

    def make_head(self) -> nn.Module:
        """Builds what turns pooled features into scores."""
        c = self.config
        return nn.Linear(c.representation or c.dim, c.classes) if c.classes else nn.Identity()

    def drop_path_rate(self, index: int) -> float:
        """Rises linearly over the blocks."""
        return self.config.drop_path * index / max(self.config.depth - 1, 1)

    def init_weights(self) -> None:
        """Draws all weights anew; parts with an `init_weights` of their own use that one."""
        super().init_weights()
        for name in ("cls_token", "dist_token", "reg_token", "pos_embed"):
            if isinstance(parameter := getattr(self, name, None), nn.Parameter):
                nn.init.trunc_normal_(parameter, std=0.02)

    def embed(self, images: Float[Tensor, "batch channels height width"]) -> TokenState:
        """The tokens that enter the first block.

        Raises:
            ValueError: the images' channels or sides do not fit the stem.
        """
        state = self.patch_embed(images)
        if self.config.prefix_positions:
            state = self.add_positions(self.add_prefix(state))
        else:
            state = self.add_prefix(self.add_positions(state))
        tokens = state.tokens if self.pos_embed is None else self.pos_drop(state.tokens)
        return state.with_tokens(self.norm_pre(tokens))

    def add_prefix(self, state: TokenState) -> TokenState:
        """Puts class token, distillation token and registers before the patches."""
        names = ("cls_token", "dist_token", "reg_token")
        prefix = [getattr(self, name) for name in names if hasattr(self, name)]
        batch = state.tokens.shape[0]
        tokens = torch.cat([*(p.expand(batch, -1, -1) for p in prefix), state.tokens], 1)
        return TokenState(tokens, state.grid, self.prefix)

    def add_positions(self, state: TokenState) -> TokenState:
        """Adds the learned positions, resized where the grid is not the configured one."""
        if self.pos_embed is None or state.grid is None:
            return state
        positions = resize_positions(
            self.pos_embed, self.config.grid, state.grid, state.prefix, antialias=self.antialias
        )
        return state.with_tokens(state.tokens + positions)

    def features(self, images: Float[Tensor, "batch channels height width"]) -> TokenState:
        """The tokens after the last block and norm."""
        state = self.embed(images)
        for block in self.blocks:
            state = block(state)
        return state.with_tokens(self.norm(state.tokens))

    def pool(self, state: TokenState) -> Float[Tensor, "batch features"]:
        """What the head reads of the last tokens."""
        kind, patches = self.config.pool, state.patches
        if kind == "class":
            pooled = state.tokens[:, 0]
        elif kind == "mean":
            pooled = patches.mean(1)
        elif kind == "max":
            pooled = patches.amax(1)
        elif kind == "map":
            pooled = self.attn_pool(patches)
        else:
            pooled = (patches.amax(1) + patches.mean(1)) / 2
        return self.head_drop(self.pre_logits(self.fc_norm(pooled)))

    def scores_of(self, state: TokenState) -> tuple[Float[Tensor, "batch classes"], ...]:
        """What each head makes of the last tokens: class head, then distillation head if any."""
        scores = (self.head(self.pool(state)),)
        if not self.config.distilled:
            return scores
        return (*scores, self.head_dist(self.head_drop(self.fc_norm(state.tokens[:, 1]))))

    def classified(self, state: TokenState) -> Float[Tensor, "batch classes"]:
        """Class scores of the last tokens, the mean over the heads."""
        scores = self.scores_of(state)
        return sum(scores[1:], scores[0]) / len(scores)

    def head_scores(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch classes"], ...]:
        """The scores of each head apart: the class head, then the distillation head if any."""
        return self.scores_of(self.features(images))

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Class scores, the mean over the heads; pooled features where there are no classes.

        Raises:
            ValueError: the images' channels or sides do not fit the stem.
        """
        return self.classified(self.features(images))
