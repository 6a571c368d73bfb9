"""EViT: after chosen attention layers only the tokens that the class token looks at go on.

Source: Liang et al., 2022, "Not All Patches are What You Need: Expediting Vision Transformers via
Token Reorganizations", arXiv 2202.07800.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from core_attn import attention_row, top_positions

from .blocks import Block, SelfAttention
from .tokens import TokenState
from .vision_transformer import VisionTransformer, VisionTransformerConfig


@dataclass(frozen=True)
class EViTConfig(VisionTransformerConfig):
    """Shape of an EViT; the defaults are DeiT-Ti, which keeps 0.7 of its tokens three times.

    Attributes:
        keep_rates: share of the patches that goes on after the attention of each block; one
            value stands for all blocks.
        fuse: whether the others go on as one token, their mean by what the class token gives them.
    """

    keep_rates: tuple[float, ...] = (1, 1, 1, 0.7, 1, 1, 0.7, 1, 1, 0.7, 1, 1)
    fuse: bool = True

    def __post_init__(self):
        """Refuses rates that leave no token, and models without a class token."""
        super().__post_init__()
        for rate in self.per_block("keep_rates"):
            if not 0 < rate <= 1:
                raise ValueError(f"keep_rates must be in (0, 1], got {rate}")
        if not self.class_token:
            raise ValueError("class_token must be True: its attention ranks the patches")

    def build(self) -> "EViT":
        """The model of this configuration, untrained."""
        return EViT(self)


def keep_schedule(depth: int, rate: float, after: Sequence[int] = (3, 6, 9)) -> tuple[float, ...]:
    """`keep_rates` with one rate at some blocks, counted from 0, and 1 elsewhere.

    Raises:
        ValueError: a block does not exist.

    Example:
        >>> keep_schedule(4, 0.5, after=(1, 3))
        (1.0, 0.5, 1.0, 0.5)
    """
    for block in after:
        if not 0 <= block < depth:
            raise ValueError(f"after must name blocks in [0, {depth}), got {block}")
    return tuple(rate if block in after else 1.0 for block in range(depth))


class RankingAttention(SelfAttention):
    """Self attention that also says what the first token gives to each token."""

    def ranked(
        self, tokens: Float[Tensor, "batch tokens dim"]
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch tokens"]]:
        """The new features and the first token's weights, the mean over the heads, in float32.

        The weights are those before dropout.
        """
        q, k, v = self.project(tokens)
        new = self.proj(self.attend(q, k, v, dropout=self.dropout).flatten(2))
        with torch.autocast(tokens.device.type, enabled=False):
            return new, attention_row(q[:, :, :1].float(), k.float(), 0).mean(1)


class ShrinkingBlock(Block):
    """A block that can drop patches between its two branches."""

    attn: RankingAttention

    def shrink(self, state: TokenState, keep: int, fused_as: int | None) -> TokenState:
        """The block with only the `keep` patches that the first token looks at most.

        Args:
            state: the tokens.
            keep: how many patches go on, in the order of falling weight.
            fused_as: a negative mark for the token that the others are fused into, the last one;
                None drops them.
        """
        new, weights = self.attn.ranked(self.norm1(state.tokens))
        state = self.mixed(state, new)
        return self.feed(select(state, weights[:, state.prefix :], keep, fused_as))


def select(
    state: TokenState,
    weights: Float[Tensor, "batch patches"],
    keep: int,
    fused_as: int | None = None,
) -> TokenState:
    """The patches of largest weight, and the others fused or dropped; the prefix stays.

    Args:
        state: the tokens.
        weights: of the patches; of equal ones the first goes on.
        keep: how many go on, in the order of falling weight.
        fused_as: what `TokenState.kept` calls the fused token; None for none.

    Example:
        >>> state = TokenState(torch.tensor([[[9.0], [1.0], [2.0], [3.0]]]), (1, 3), prefix=1)
        >>> small = select(state, torch.tensor([[0.2, 0.5, 0.3]]), keep=1, fused_as=-1)
        >>> small.tokens.flatten(), small.kept
        (tensor([9.0000, 2.0000, 1.1000]), tensor([[ 1, -1]]))
    """
    patches = state.patches
    number = torch.arange(patches.shape[1], device=patches.device)
    kept = number.expand(patches.shape[:2]) if state.kept is None else state.kept
    chosen = top_positions(weights, keep)
    tokens = [state.tokens[:, : state.prefix], _take(patches, chosen)]
    marks = [kept.gather(1, chosen)]
    if fused_as is not None:
        rest = weights.scatter(1, chosen, 0.0).to(patches.dtype)
        tokens.append(rest[:, None] @ patches)
        marks.append(marks[0].new_full((patches.shape[0], 1), fused_as))
    return replace(state, tokens=torch.cat(tokens, 1), grid=None, kept=torch.cat(marks, 1))


class EViT(VisionTransformer):
    """A vision transformer that drops or fuses patches on its way.

    Example:
        >>> config = EViTConfig(16, patch_size=4, dim=24, depth=2, keep_rates=(0.5, 1.0))
        >>> EViT(config).features(torch.randn(2, 3, 16, 16)).tokens.shape  # class, 8 and 1 fused
        torch.Size([2, 10, 24])
    """

    config: EViTConfig
    blocks: Any  # ShrinkingBlocks
    antialias = False  # as the official code resizes positions

    def make_block(self, index: int) -> Block:
        """A block that can shrink."""
        c = self.config
        return ShrinkingBlock(
            c.dim,
            RankingAttention(
                c.dim,
                c.heads,
                qkv_bias=c.qkv_bias,
                qk_norm=c.qk_norm,
                norm_eps=c.norm_eps,
                dropout=c.attention_dropout,
            ),
            self.make_mlp(index),
            norm_eps=c.norm_eps,
            layer_scale=c.layer_scale,
            dropout=c.dropout,
            drop_path=self.drop_path_rate(index),
        )

    def keep(
        self,
        block: int,
        patches: int,
        keep_rate: float | Sequence[float] | None = None,
        tokens: int | Sequence[int] | None = None,
    ) -> int:
        """How many of the patches that enter a block go on; all of them if it does not shrink.

        Args:
            block: counted from 0.
            patches: that enter.
            keep_rate: instead of the configured rates, where those are below 1.
            tokens: how many go on, whatever the rates.

        Raises:
            ValueError: a number is outside its range, a list has not one entry per block.
        """
        if tokens is not None:
            count = _of_block("tokens", tokens, block, self.config.depth)
            if not 1 <= count <= patches:
                raise ValueError(f"tokens must be in [1, {patches}] at block {block}, got {count}")
            return int(count)
        rate = self.config.per_block("keep_rates")[block]
        if keep_rate is not None:
            called = _of_block("keep_rate", keep_rate, block, self.config.depth)
            if not 0 < called <= 1:
                raise ValueError(f"keep_rate must be in (0, 1], got {called}")
            rate = called if rate < 1 else 1
        return math.ceil(rate * patches) if rate < 1 else patches

    def features(
        self,
        images: Float[Tensor, "batch channels height width"],
        keep_rate: float | Sequence[float] | None = None,
        tokens: int | Sequence[int] | None = None,
    ) -> TokenState:
        """The tokens after the last block and norm; `kept` says which patches they are.

        Arguments and errors as in `keep`.
        """
        state = self.embed(images)
        for index, block in enumerate(self.blocks):
            patches = state.patches.shape[1]
            keep = self.keep(index, patches, keep_rate, tokens)
            if keep < patches:
                state = block.shrink(state, keep, -1 - index if self.config.fuse else None)
            else:
                state = block(state)
        return state.with_tokens(self.norm(state.tokens))

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        keep_rate: float | Sequence[float] | None = None,
        tokens: int | Sequence[int] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Class scores; pooled features where there are no classes.

        Arguments and errors as in `keep`.
        """
        return self.classified(self.features(images, keep_rate, tokens))


def token_counts(config: EViTConfig) -> list[int]:
    """How many tokens leave each block.

    Example:
        >>> token_counts(EViTConfig())[::3]
        [197, 140, 100, 72]
    """
    patches, counts = config.grid[0] * config.grid[1], []
    for rate in config.per_block("keep_rates"):
        kept = math.ceil(rate * patches) if rate < 1 else patches
        patches = kept + (config.fuse and kept < patches)
        counts.append(config.prefix + patches)
    return counts


def multiply_adds(config: EViTConfig) -> int:
    """Multiplications, each with an addition, for one image.

    Example:
        >>> round(multiply_adds(EViTConfig()) / 1e9, 2)
        0.82
    """
    grid, dim = config.grid[0] * config.grid[1], config.dim
    entering = config.prefix + grid
    total = grid * dim * config.channels * config.patch_size**2 + dim * config.classes
    for leaving in token_counts(config):
        hidden = int(dim * config.mlp_ratio)
        total += 4 * entering * dim**2 + 2 * entering**2 * dim + 2 * leaving * dim * hidden
        entering = leaving
    return total


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(*index.shape, x.shape[-1]))


def _of_block(name: str, value: float | Sequence[float], block: int, depth: int) -> float:
    if not isinstance(value, Sequence):
        return value
    if len(value) != depth:
        raise ValueError(f"{name} must be one number or one per block ({depth}), got {len(value)}")
    return value[block]


VARIANTS = {
    "evit_tiny": EViTConfig(),
    "evit_small": EViTConfig(dim=384, heads=6),
    "evit_base": EViTConfig(dim=768, heads=12),
}
