"""SpectFormer-H: four stages, gates on the fine maps, attention on the coarse ones."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import AttentionLayer

from .batch_norm import BatchNorm2d
from .blocks import Block, Mlp
from .spectformer import other_size, resized_gates
from .spectral_gate import SpectralGate
from .staged_transformer import StagedConfig, StagedTransformer, ToMap
from .token_labels import Box, TokenScores, swapped
from .tokens import TokenState


@dataclass(frozen=True)
class SpectFormerHConfig(StagedConfig):
    """Shape of a SpectFormer-H; the defaults are SpectFormer-H-S without token labels.

    Attributes:
        stem_dim: channels within the stem.
        heads: attention heads of each stage; unused where it has gates.
        mlp_ratios: hidden features of each stage's MLP per feature of a token.
        spectral: for each stage whether its blocks have gates instead of attention.
        token_labels: whether a second head scores every token, for training with token labels.
        norm_eps: epsilon of the layer norms in the blocks and after the stages.
    """

    dims: tuple[int, ...] = (64, 128, 320, 448)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    stem_dim: int = 32
    heads: tuple[int, ...] = (2, 4, 10, 14)
    mlp_ratios: tuple[float, ...] = (8, 8, 4, 4)
    spectral: tuple[bool, ...] = (True, True, False, False)
    token_labels: bool = False
    norm_eps: float = 1e-6

    def __post_init__(self):
        """Refuses stages that do not match or cannot be built."""
        super().__post_init__()
        self.require_per_stage("heads", "mlp_ratios", "spectral")
        for dim, heads in zip(self.dims, self.heads, strict=True):
            if dim % heads:
                raise ValueError(f"dims {self.dims} are not divisible by heads {self.heads}")

    def grid(self, stage: int) -> tuple[int, int]:
        """Rows and columns of a stage's map."""
        rows, columns = self.image_sides
        for _ in range(stage + 2):
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
        return rows, columns

    def build(self) -> "SpectFormerH":
        """The model of this configuration, untrained."""
        return SpectFormerH(self)


class ConvEmbed(nn.Module):
    """A 3x3 convolution of stride 2 and a layer norm, for the first stage after a stem.

    Args:
        channels: of the map that comes in.
        dim: features of a token.
        stem_dim: channels of the stem, 7x7 of stride 2 and two of 3x3; None for no stem.
    """

    def __init__(self, channels: int, dim: int, stem_dim: int | None = None):
        super().__init__()
        self.channels, self.conv = channels, nn.Sequential()
        if stem_dim is not None:
            for kernel, stride in ((7, 2), (3, 1), (3, 1)):
                self.conv.append(
                    nn.Conv2d(channels, stem_dim, kernel, stride, kernel // 2, bias=False)
                )
                self.conv.extend([BatchNorm2d(stem_dim), nn.ReLU()])
                channels = stem_dim
        self.proj = nn.Conv2d(channels, dim, 3, 2, 1)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> TokenState:
        """The tokens of the stage."""
        if images.dim() != 4 or images.shape[1] != self.channels:
            raise ValueError(
                f"images must be (batch, {self.channels}, height, width), got {tuple(images.shape)}"
            )
        x = self.proj(self.conv(images))
        return TokenState(self.norm(x.flatten(2).transpose(1, 2)), (x.shape[2], x.shape[3]))


class SplitAttention(AttentionLayer):
    """Self attention whose queries have a projection apart from keys and values.

    Args:
        dim: features of a token.
        heads: attention heads.
        from_class: whether the first token alone asks.
    """

    def __init__(self, dim: int, heads: int, *, from_class: bool = False):
        super().__init__()
        self.num_heads, self.from_class = heads, from_class
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, state: TokenState) -> Float[Tensor, "batch queries dim"]:
        """The mixed tokens, or the first one."""
        x = state.tokens
        q = self.q(x[:, :1] if self.from_class else x)
        q, k, v = (
            y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for y in (q, *self.kv(x).chunk(2, -1))
        )
        return self.proj(self.attend(q, k, v).flatten(2))


class ConvMlp(nn.Module):
    """Two linear maps with a 3x3 depth-wise convolution and then a GELU between them.

    Args:
        dim: features of a token.
        hidden: features between.
    """

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, state: TokenState) -> Float[Tensor, "batch tokens dim"]:
        """The new features."""
        hidden = self.dwconv(state.with_tokens(self.fc1(state.tokens)).feature_map)
        return self.fc2(F.gelu(hidden.flatten(2).transpose(1, 2)))


class ClassBlock(nn.Module):
    """A class token, the mean of the others, asks them once: two residual branches on it alone.

    Args:
        dim: features of a token.
        heads: attention heads.
        hidden: hidden features of the MLP.
        norm_eps: epsilon of the layer norms.
    """

    def __init__(self, dim: int, heads: int, hidden: int, norm_eps: float):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=norm_eps) for _ in range(2))
        self.attn = SplitAttention(dim, heads, from_class=True)
        self.mlp = Mlp(dim, hidden)

    def forward(self, state: TokenState) -> TokenState:
        """Puts the class token in front."""
        tokens = torch.cat([state.tokens.mean(1, keepdim=True), state.tokens], 1)
        state = TokenState(tokens, state.grid, prefix=1)
        first = tokens[:, :1] + self.attn(state.with_tokens(self.norm1(tokens)))
        first = first + self.mlp(state.with_tokens(self.norm2(first)))
        return state.with_tokens(torch.cat([first, state.patches], 1))


class ClassHead(nn.Module):
    """What follows the blocks of the last stage: the class block and its norm."""

    def __init__(self, block: ClassBlock, norm: nn.LayerNorm):
        super().__init__()
        self.block, self.norm = block, norm

    def forward(self, state: TokenState) -> TokenState:
        """The normalized tokens, the class token in front."""
        state = self.block(state)
        return state.with_tokens(self.norm(state.tokens))


class SpectFormerH(StagedTransformer):
    """Convolutional stem -> stages of gates -> stages of attention -> a class token at the end.

    With token labels the evaluation scores are those of the class token plus half the largest of
    all tokens. The gates belong to one grid; `resized` makes a model for images of another size.

    Args:
        config: its shape.

    Source: Patro et al., 2023, arXiv 2304.06446, section 3.2; token labels: Jiang et al., 2021,
    "All Tokens Matter", arXiv 2104.10858.

    Example:
        >>> import torch
        >>> config = SpectFormerHConfig(32, dims=(8, 12), depths=(1, 1), stem_dim=4, heads=(2, 3),
        ...                             mlp_ratios=(2, 2), spectral=(True, False), classes=5)
        >>> SpectFormerH(config)(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 5])
    """

    config: SpectFormerHConfig

    def __init__(self, config: SpectFormerHConfig):
        super().__init__(config)
        self.aux_head = self.make_head() if config.token_labels else None
        self.init_weights()

    def make_embed(self, stage: int) -> nn.Module:
        """A strided convolution, after the stem in the first stage."""
        c = self.config
        if stage == 0:
            return ConvEmbed(c.channels, c.dims[0], c.stem_dim)
        return ConvEmbed(c.dims[stage - 1], c.dims[stage])

    def make_block(self, stage: int, index: int) -> nn.Module:
        """A gate or attention, and an MLP with a convolution."""
        c, dim = self.config, self.config.dims[stage]
        if c.spectral[stage]:
            mixer = SpectralGate(dim, c.grid(stage))
        else:
            mixer = SplitAttention(dim, c.heads[stage])
        return Block(
            dim, mixer, ConvMlp(dim, int(dim * c.mlp_ratios[stage])), norm_eps=c.norm_eps,
            drop_path=self.drop_path_rate(stage, index),
        )  # fmt: skip

    def make_norm(self, stage: int) -> nn.Module:
        """A layer norm after each stage, behind the class block in the last."""
        c, dim = self.config, self.config.dims[stage]
        if stage + 1 < len(c.depths):
            return ToMap(dim, c.norm_eps)
        hidden = int(dim * c.mlp_ratios[stage])
        block = ClassBlock(dim, c.heads[stage], hidden, c.norm_eps)
        return ClassHead(block, nn.LayerNorm(dim, eps=c.norm_eps))

    def init_weights(self) -> None:
        """Convolutions by their fan out; linear maps as everywhere."""
        super().init_weights()
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                fan_out = part.weight[0, 0].numel() * part.out_channels // part.groups
                nn.init.normal_(part.weight, std=(2 / fan_out) ** 0.5)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def tokens(
        self, images: Float[Tensor, "batch channels height width"], box: Box | None = None
    ) -> TokenState:
        """The last tokens, the class token in front.

        Args:
            images: a batch.
            box: of the last map, over which the first tokens are those of the batch's mirror image.

        Raises:
            ValueError: the images' channels or sides do not fit.
        """
        x: Any = images  # a map, and the tokens after the last stage
        stages: Any = self.stages
        for number, stage in enumerate(stages):
            state = stage.embed(x)
            if any(self.config.spectral) and state.grid != self.config.grid(number):
                raise ValueError(other_size(images, self.config))
            if box is not None and number == 0:
                state = swapped(state, box.scaled(2 ** (len(self.stages) - 1)))
            for block in stage.blocks:
                state = block(state)
            x = stage.norm(state)
        return x

    def features(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch _dim _rows _columns"]]:
        """The map of each stage, the finest first.

        Raises:
            ValueError: the images' channels or sides do not fit.
        """
        maps = []
        for stage in self.stages:
            x = stage(maps[-1] if maps else images)
            maps.append(x.feature_map if isinstance(x, TokenState) else x)
        return maps

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Class scores; the class token's features where there are no classes.

        Raises:
            ValueError: the images' channels or sides do not fit.
        """
        state = self.tokens(images)
        scores = self.head(state.tokens[:, 0])
        if self.aux_head is None:
            return scores
        return scores + 0.5 * self.aux_head(state.patches).amax(1)

    def token_scores(
        self, images: Float[Tensor, "batch channels height width"], box: Box | None = None
    ) -> TokenScores:
        """The scores of class and tokens apart, for `token_label_loss`.

        Args:
            images: a batch.
            box: see `tokens`; the scores of the tokens are swapped back (MixToken).

        Raises:
            ValueError: the model has no head for tokens, or as in `forward`.
        """
        if self.aux_head is None:
            raise ValueError("token scores need a configuration with token_labels")
        state = self.tokens(images, box)
        scores = state.with_tokens(self.aux_head(state.patches))
        if box is not None:
            scores = swapped(replace(scores, prefix=0), box)
        return TokenScores(self.head(state.tokens[:, 0]), scores.tokens, box)

    def resized(self, image_size: int | tuple[int, int]) -> "SpectFormerH":
        """A model for images of another size, with its gates interpolated."""
        model = SpectFormerH(replace(self.config, image_size=image_size))
        model.to(next(self.parameters()))
        state = resized_gates(self, model)
        model.load_state_dict(state)
        return model.train(self.training)


VARIANTS = {
    "spectformer_h_small": SpectFormerHConfig(drop_path=0.1),
    "spectformer_h_base": SpectFormerHConfig(
        drop_path=0.1, stem_dim=64, dims=(64, 128, 320, 512), heads=(2, 4, 10, 16),
        depths=(3, 4, 12, 3),
    ),
    "spectformer_h_large": SpectFormerHConfig(
        drop_path=0.3, stem_dim=64, dims=(96, 192, 384, 512), heads=(3, 6, 12, 16),
        depths=(3, 6, 18, 3),
    ),
}  # fmt: skip
VARIANTS |= {
    f"{name}_token_labels": replace(config, token_labels=True) for name, config in VARIANTS.items()
}
