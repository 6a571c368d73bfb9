"""HaloNet: residual nets whose 3x3 convolutions are, in part or all, halo attention."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from timm.layers import EcaModule, SEModule
from torch import Tensor, nn

from .batch_norm import BatchNorm2d
from .blocks import DropPath
from .halo_attention import HaloAttention, multiple_of_8
from .staged_transformer import StagedConfig, StagedTransformer

STEMS = ("7x7", "tiered", "3x3")
ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU}
CHANNEL_ATTENTION = ("", "se", "eca")


@dataclass(frozen=True)
class HaloNetConfig(StagedConfig):
    """Shape of a HaloNet; the defaults are H0.

    Attributes:
        dims: channels out of each stage.
        depths: blocks of each stage.
        widths: channels within the blocks of each stage, unless there is an `expansion`.
        expansion: channels within a block per channel that enters it; 0 for `widths`.
        strides: of the first block of each stage.
        kinds: for each stage a letter per block, "h" for halo attention, "b" for attention over
            the whole, square map, and "c" for a 3x3 convolution; empty for "h" everywhere.
        heads: attention heads, one number or one per stage.
        block: side of a block of queries.
        halo: how far a window reaches beyond its block.
        value_ratio: channels of the values per channel of the block.
        head_dim: channels of a head's queries and keys; by `qk_ratio` if None.
        qk_ratio: channels of all queries per channel of the values.
        qkv_bias: whether queries, keys and values have a bias.
        avg_down: whether attention strides by average pooling.
        scale_positions: whether positional logits are scaled as the others.
        mask_padding: whether positions outside the map are left out of the softmax.
        any_size: whether maps that no number of blocks covers are allowed.
        stem: "7x7" one convolution, "tiered" three 3x3 ones of growing width, "3x3" one.
        stem_dim: channels out of the stem.
        stem_pool: whether a 3x3 maximum of stride 2 follows the stem.
        activation: "relu" or "silu".
        group_width: channels of a group in the 3x3 convolutions; 0 for one group.
        channel_attention: of convolution blocks: "" for none, "se" or "eca".
        reduction: channels that "se" squeezes to, per channel.
        shortcuts: whether a block that changes the shape has a shortcut; else nothing goes by it.
        linear_out: whether blocks end without an activation.
        final_dim: channels of a last 1x1 convolution; 0 for none.
    """

    image_size: int | tuple[int, int] = 256
    dims: tuple[int, ...] = (32, 64, 128, 256)
    depths: tuple[int, ...] = (3, 3, 7, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    expansion: float = 0.0
    strides: tuple[int, ...] = (1, 2, 2, 2)
    kinds: tuple[str, ...] = ()
    heads: int | tuple[int, ...] = 8
    block: int = 8
    halo: int = 3
    value_ratio: float = 1.0
    head_dim: int | None = None
    qk_ratio: float = 1.0
    qkv_bias: bool = False
    avg_down: bool = False
    scale_positions: bool = False
    mask_padding: bool = False
    any_size: bool = False
    stem: Literal["7x7", "tiered", "3x3"] = "7x7"
    stem_dim: int = 64
    stem_pool: bool = True
    activation: Literal["relu", "silu"] = "relu"
    group_width: int = 0
    channel_attention: Literal["", "se", "eca"] = ""
    reduction: float = 1 / 16
    shortcuts: bool = True
    linear_out: bool = False
    final_dim: int = 0

    def __post_init__(self):
        """Refuses shapes that cannot be built, and images whose maps no blocks cover."""
        super().__post_init__()
        self.require_per_stage("widths", "strides", *(["kinds"] if self.kinds else []))
        if not isinstance(self.heads, int):
            self.require_per_stage("heads")
        for kinds, depth in zip(self.kinds, self.depths, strict=False):
            if len(kinds) != depth or set(kinds) - set("hbc"):
                raise ValueError(
                    f"kinds must be {depth} letters of 'h', 'b' and 'c', got {kinds!r}"
                )
        if self.expansion < 0 or self.reduction <= 0:
            raise ValueError(
                "expansion must be at least 0 and reduction above 0, got "
                f"{self.expansion} and {self.reduction}"
            )
        for name, allowed in (
            ("stem", STEMS), ("activation", ACTIVATIONS), ("channel_attention", CHANNEL_ATTENTION),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                known = ", ".join(map(repr, allowed))
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        self.require_blocks(self.image_sides)

    def require_blocks(self, sides: tuple[int, int]) -> None:
        """Requires that whole blocks cover the maps that attention sees.

        Raises:
            ValueError: they do not; the message says which sizes fit.
        """
        multiple, bad = 1, None
        for stage in range(len(self.strides)):
            for index, kind in enumerate(self.kinds_of(stage)):
                scale = self.scale(stage, index)
                grid = tuple(-(-side // scale) for side in sides)
                if kind == "b" and grid != (self.map_side(stage, index),) * 2:
                    raise ValueError(
                        f"attention over the whole map was built for images of "
                        f"{self.image_sides[0]}x{self.image_sides[1]} pixels, which must be "
                        f"square, got {sides[0]}x{sides[1]}"
                    )
                if kind == "h" and not self.any_size:
                    multiple = scale * self.block
                    if any(side % self.block for side in grid) and bad is None:
                        bad = grid
        if bad is not None:
            raise ValueError(
                f"images of {sides[0]}x{sides[1]} pixels give a map of {bad[0]}x{bad[1]}, which "
                f"is not divisible by block {self.block}; sizes that are multiples of {multiple} "
                "fit, or set any_size"
            )

    @property
    def stem_stride(self) -> int:
        """Pixels per position after the stem; three convolutions stride twice where none pools."""
        return 4 if self.stem_pool or self.stem == "tiered" else 2

    def scale(self, stage: int, index: int) -> int:
        """Pixels per position of the map that enters a block."""
        strides = self.strides[: stage + (index > 0)]
        return self.stem_stride * math.prod(strides)

    def map_side(self, stage: int, index: int) -> int:
        """Rows of the map that enters a block."""
        return -(-self.image_sides[0] // self.scale(stage, index))

    def kinds_of(self, stage: int) -> str:
        """The letters of the blocks of a stage."""
        return self.kinds[stage] if self.kinds else "h" * self.depths[stage]

    def build(self) -> "HaloNet":
        """The model of this configuration, untrained."""
        return HaloNet(self)


class ConvNormAct(nn.Module):
    """A convolution without bias, a batch norm and an activation, named as in timm.

    timm's own holds its activation in the norm, where it is lost when that is synchronized.

    Args:
        dim: channels in.
        out: channels out.
        kernel: side of the convolution, odd.
        stride: its step.
        groups: of its channels.
        act: makes the activation; none by default.

    Example:
        >>> import torch
        >>> ConvNormAct(3, 8, 3, 2, act=nn.ReLU)(torch.randn(2, 3, 9, 8)).shape
        torch.Size([2, 8, 5, 4])
    """

    def __init__(
        self, dim: int, out: int, kernel: int, stride: int = 1, *, groups: int = 1,
        act: Callable[[], nn.Module] = nn.Identity,
    ):  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(dim, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn, self.act = BatchNorm2d(out), act()

    def forward(
        self, x: Float[Tensor, "batch dim rows columns"]
    ) -> Float[Tensor, "batch out out_rows out_columns"]:
        """The new map."""
        return self.act(self.bn(self.conv(x)))


class HaloBlock(nn.Module):
    """x = act(shortcut(x) + conv(bn(mix(conv(x))))), with 1x1 convolutions around the mixing.

    Args:
        config: of the net.
        stage: number of the stage.
        index: number of the block in it.
        dim: channels in.
        drop_path: probability of skipping the branch for a sample, in training.
    """

    def __init__(
        self, config: HaloNetConfig, stage: int, index: int, dim: int, drop_path: float = 0.0
    ):
        super().__init__()
        c, out, kind = config, config.dims[stage], config.kinds_of(stage)[index]
        width = multiple_of_8(c.expansion * dim) if c.expansion else c.widths[stage]
        stride = c.strides[stage] if index == 0 else 1
        act = ACTIVATIONS[c.activation]
        self.shortcut: nn.Module | None = nn.Identity()
        if dim != out or stride != 1:
            self.shortcut = None
            if c.shortcuts:
                self.shortcut = ConvNormAct(dim, out, 1, stride)
        self.conv1_1x1 = ConvNormAct(dim, width, 1, act=act)
        mixed = width
        if kind != "c":
            whole = kind == "b"
            mixed = round(width * c.value_ratio)
            heads = c.heads if isinstance(c.heads, int) else c.heads[stage]
            self.self_attn = HaloAttention(
                width, heads, block=c.map_side(stage, index) if whole else c.block,
                halo=0 if whole else c.halo, stride=stride, out_dim=mixed,
                head_dim=c.head_dim or multiple_of_8(c.qk_ratio * width) // heads,
                qkv_bias=c.qkv_bias, avg_down=c.avg_down or whole,
                scale_positions=c.scale_positions,
                mask_padding=c.mask_padding, any_size=c.any_size,
            )  # fmt: skip
            self.post_attn, self.post_act = BatchNorm2d(mixed), act()
        else:
            groups = width // c.group_width if c.group_width else 1
            self.conv2_kxk = ConvNormAct(width, width, 3, stride, groups=groups, act=act)
            self.attn = {
                "": nn.Identity,
                "se": lambda: SEModule(width, rd_ratio=c.reduction),
                "eca": lambda: EcaModule(width),
            }[c.channel_attention]()
        self.conv3_1x1 = ConvNormAct(mixed, out, 1)
        self.drop_path = DropPath(drop_path)
        self.act = nn.Identity() if c.linear_out else act()

    def forward(
        self, x: Float[Tensor, "batch dim rows columns"]
    ) -> Float[Tensor, "batch out_dim out_rows out_columns"]:
        """The map after the block."""
        y = self.conv1_1x1(x)
        if hasattr(self, "self_attn"):
            y = self.post_act(self.post_attn(self.self_attn(y)))
        else:
            y = self.attn(self.conv2_kxk(y))
        y = self.drop_path(self.conv3_1x1(y))
        return self.act(y if self.shortcut is None else self.shortcut(x) + y)


class HaloNet(StagedTransformer):
    """Images -> a convolutional stem -> residual blocks of halo attention -> class scores.

    Args:
        config: its shape.

    Source: Vaswani et al., 2021, "Scaling Local Self-Attention for Parameter Efficient Visual
    Backbones", arXiv 2103.12731, tables 1 and 2.

    Example:
        >>> import torch
        >>> config = HaloNetConfig(32, dims=(8, 16), depths=(1, 1), widths=(8, 8), strides=(1, 2),
        ...                        heads=2, block=4, halo=1, classes=5)
        >>> HaloNet(config)(torch.randn(2, 3, 32, 64)).shape
        torch.Size([2, 5])
    """

    config: HaloNetConfig

    def make_embed(self, stage: int) -> nn.Module:
        """The stem, before the first stage."""
        return _stem(self.config) if stage == 0 else nn.Identity()

    def make_block(self, stage: int, index: int) -> nn.Module:
        """A block of attention or convolution."""
        c = self.config
        before = (c.stem_dim, *c.dims)[stage] if index == 0 else c.dims[stage]
        return HaloBlock(c, stage, index, before, self.drop_path_rate(stage, index))

    def make_norm(self, stage: int) -> nn.Module:
        """The last 1x1 convolution, after the last stage, where there is one."""
        c = self.config
        if stage + 1 < len(c.depths) or not c.final_dim:
            return nn.Identity()
        return ConvNormAct(c.dims[-1], c.final_dim, 1, act=ACTIVATIONS[c.activation])

    def make_head(self) -> nn.Module:
        """A linear map of the pooled features."""
        c = self.config
        return nn.Linear(c.final_dim or c.dims[-1], c.classes) if c.classes else nn.Identity()

    def init_weights(self) -> None:
        """Convolutions by their fan out; the last norm of a residual branch begins at 0."""
        super().init_weights()
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(part, HaloBlock):
                nn.init.zeros_(part.conv3_1x1.bn.weight)

    def features(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch _dim _rows _columns"]]:
        """The map of each stage, the finest first.

        Raises:
            ValueError: the images' channels or sides do not fit.
        """
        channels = self.config.channels
        if images.dim() != 4 or images.shape[1] != channels:
            raise ValueError(
                f"images must be (batch, {channels}, height, width), got {tuple(images.shape)}"
            )
        self.config.require_blocks((images.shape[2], images.shape[3]))
        return super().features(images)


def _stem(c: HaloNetConfig) -> nn.Sequential:
    act = ACTIVATIONS[c.activation]
    widths = (3 * c.stem_dim // 8, c.stem_dim // 2, c.stem_dim)
    stem = nn.Sequential()
    if c.stem == "tiered":
        dims = (c.channels, *widths)
        for i in range(3):
            stride = 2 if i == 0 or (i == 2 and not c.stem_pool) else 1
            layer = ConvNormAct(dims[i], dims[i + 1], 3, stride, act=act)
            stem.add_module(f"conv{i + 1}", layer)
    else:
        kernel = 7 if c.stem == "7x7" else 3
        stem.add_module("conv1", ConvNormAct(c.channels, c.stem_dim, kernel, 2, act=act))
    if c.stem_pool:
        stem.add_module("pool", nn.MaxPool2d(3, 2, 1))
    return stem


_H0 = HaloNetConfig()


def _h(image: int, block: int, halo: int, values: float, outs: float, third: int, final: int = 0):
    """One row of the paper's table of variants."""
    return replace(
        _H0, image_size=image, block=block, halo=halo, value_ratio=values, final_dim=final,
        dims=tuple(round(outs * width) for width in _H0.widths), depths=(3, 3, third, 3),
        any_size=image % (32 * block) != 0,
    )  # fmt: skip


_WIDE = {"dims": (256, 512, 1024, 2048), "widths": (64, 128, 256, 512), "stem": "tiered"}

VARIANTS = {
    "halonet_h0": _H0,
    "halonet_h1": _h(256, 8, 3, 1, 1, 10),
    "halonet_h2": _h(256, 8, 3, 1, 1.25, 11),
    "halonet_h3": _h(320, 10, 3, 1, 1.5, 12, 1024),
    "halonet_h4": _h(384, 12, 2, 1, 3, 12, 1280),
    "halonet_h5": _h(448, 14, 2, 2.5, 2, 23, 1536),
    "halonet_h6": _h(512, 8, 4, 3, 2.75, 24, 1536),
    "halonet_h7": _h(600, 10, 3, 4, 3.5, 26, 2048),
    "halonet26t": HaloNetConfig(
        **_WIDE, depths=(2, 2, 2, 2), kinds=("cc", "cc", "ch", "hh"), halo=2
    ),
    "halonet50ts": HaloNetConfig(
        **_WIDE, depths=(3, 4, 6, 3), kinds=("ccc", "ccch", "chchch", "chc"), heads=(8, 4, 8, 8),
        activation="silu",
    ),
    "sehalonet33ts": HaloNetConfig(
        dims=(256, 512, 1024, 1536), depths=(2, 3, 3, 2), widths=(64, 128, 256, 512),
        kinds=("cc", "cch", "cch", "hh"), stem="tiered", stem_pool=False, activation="silu",
        channel_attention="se", final_dim=1280, strides=(1, 2, 2, 2),
    ),
    "eca_halonext26ts": HaloNetConfig(
        **_WIDE, depths=(2, 2, 2, 2), kinds=("cc", "cc", "ch", "hh"), halo=2, head_dim=16,
        activation="silu", group_width=16, channel_attention="eca",
    ),
    "halo2botnet50ts_256": HaloNetConfig(
        **_WIDE, depths=(3, 4, 6, 3), kinds=("ccc", "chch", "chchch", "cbc"), heads=(8, 8, 8, 4),
        stem_pool=False, strides=(1, 2, 2, 2), activation="silu",
    ),
    "haloregnetz_b": HaloNetConfig(
        224, dims=(48, 96, 192, 288), depths=(2, 6, 12, 2), expansion=3, strides=(2, 2, 2, 2),
        kinds=("cc", "c" * 6, "ccch" * 3, "hh"), block=7, halo=2, qk_ratio=0.33, stem="3x3",
        stem_dim=32, stem_pool=False, activation="silu", group_width=16, channel_attention="se",
        reduction=0.25, shortcuts=False, linear_out=True, final_dim=1536,
    ),
}  # fmt: skip
