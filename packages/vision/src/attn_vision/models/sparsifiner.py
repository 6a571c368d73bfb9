"""Sparsifiner: every query attends to the few keys that a predictor chooses for it.

Source: Wei et al., 2023, "Sparsifiner: Learning Sparse Instance-Dependent Attention for Efficient
Vision Transformers", arXiv 2303.13755.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core_attn import attention, attention_row, attention_weights, gather_attention, top_positions

from .blocks import Block, SelfAttention
from .connectivity import ConnectivityPredictor, Prediction
from .tokens import TokenState
from .vision_transformer import VisionTransformer, VisionTransformerConfig

_PER_BLOCK = ("keep_rates", "token_keep_rates", "prunes_tokens")
_MANY = 512  # tokens, from which on gathering keys is faster than masking them


@dataclass(frozen=True)
class SparsifinerConfig(VisionTransformerConfig):
    """Shape of a Sparsifiner; the defaults are DeiT-Ti with a quarter of the keys.

    Attributes:
        keep_rates: share of the keys that each query attends to, in each block; one value stands
            for all blocks.
        prunes_tokens: blocks after which patches are left out; one value stands for all.
        token_keep_rates: share of all patches that is left after such a block.
        prune_rows: whether the queries of patches left out give 0.
        qk_scale: factor of attention's products; by default the number of features of a head to
            the power of -1/2. The predictor's is that of heads, as in the official code.
        reduce_n: the predictor has one pattern for so many tokens.
        reduce_c: it works on one feature for so many of a head.
        shared_basis: whether it sums keys by the patterns themselves.
        top_coefficients: patterns that a query keeps; None for those above a threshold.
        coefficient_threshold: see `top_coefficients`.
        basis_threshold: entries of the patterns up to this size are 0.
        score_threshold: keys above this score are attended to, instead of a share of them.
        signed_basis: whether patterns keep their signs, against the official code.
    """

    keep_rates: tuple[float, ...] = (0.25,)
    prunes_tokens: tuple[bool, ...] = (False,)
    token_keep_rates: tuple[float, ...] = (1.0,)
    prune_rows: bool = False
    qk_scale: float | None = None
    reduce_n: float = 6
    reduce_c: int = 2
    shared_basis: bool = False
    top_coefficients: int | None = 8
    coefficient_threshold: float = 0.05
    basis_threshold: float = 0.02
    score_threshold: float | None = None
    signed_basis: bool = False

    def __post_init__(self):
        """Refuses lists that do not match the depth, and rates outside (0, 1]."""
        super().__post_init__()
        for name in _PER_BLOCK:
            for rate in self.per_block(name):
                if name != "prunes_tokens" and not 0 < rate <= 1:
                    raise ValueError(f"{name} must be in (0, 1], got {rate}")
        if self.reduce_n < 1 or self.reduce_c < 1:
            raise ValueError(
                f"reduce_n and reduce_c must be at least 1, got {self.reduce_n}, {self.reduce_c}"
            )
        if self.prefix != 1 or not self.class_token:
            raise ValueError(
                "Sparsifiner needs one class token and no other token before the patches"
            )

    def entering(self, block: int) -> int:
        """How many patches are not left out when they enter a block."""
        patches = left = self.grid[0] * self.grid[1]
        rates, prunes = self.per_block("token_keep_rates"), self.per_block("prunes_tokens")
        for rate, leaves_out in zip(rates[:block], prunes[:block], strict=True):
            left = math.ceil(rate * patches) if leaves_out else left
        return left

    def build(self) -> "Sparsifiner":
        """The model of this configuration, untrained."""
        return Sparsifiner(self)


class SparseAttention(SelfAttention):
    """Self attention over the keys that a predictor chooses; the class token sees all.

    Args:
        config: of the model.
        block: number of the block.
    """

    def __init__(self, config: SparsifinerConfig, block: int):
        c = config
        super().__init__(
            c.dim, c.heads, qkv_bias=c.qkv_bias, qk_norm=c.qk_norm, norm_eps=c.norm_eps
        )
        tokens = 1 + c.grid[0] * c.grid[1]
        self.keep_rate, self.prune_rows = c.per_block("keep_rates")[block], c.prune_rows
        self.live = 1 + c.entering(block)
        self.score_threshold, self.scale = c.score_threshold, c.qk_scale
        self.mask_predictor = ConnectivityPredictor(
            self.head_dim, c.heads, tokens=tokens, width=self.head_dim // c.reduce_c,
            size=int(tokens // c.reduce_n), shared=c.shared_basis,
            top_coefficients=c.top_coefficients, signed_basis=c.signed_basis,
            basis_threshold=c.basis_threshold, coefficient_threshold=c.coefficient_threshold,
        )  # fmt: skip

    def forward(self, state: TokenState) -> Float[Tensor, "batch tokens dim"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Attends to the predicted keys."""
        return self.attended(*self.queries(state), state.alive)

    def attended(
        self,
        q: Float[Tensor, "batch heads tokens head_dim"],
        k: Float[Tensor, "batch heads tokens head_dim"],
        v: Float[Tensor, "batch heads tokens head_dim"],
        alive: Bool[Tensor, "batch patches"] | None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """The new features."""
        prediction = self.mask_predictor(q, k, alive)
        if self.gathers(q.shape[-2]):
            index = self.chosen(prediction, alive)
            patches = gather_attention(q[:, :, 1:], k, v, index, scale=self.scale)
            first = attention(q[:, :, :1], k, v, scale=self.scale)
            heads = torch.cat([first, patches], 2).transpose(1, 2)
            heads = self.heads(heads)
        else:
            mask = self.mask(prediction, alive)
            heads = self.attend(q, k, v, mask=mask, scale=self.scale)
        return self.proj(heads.flatten(2))

    def ranks(
        self,
        q: Float[Tensor, "batch heads tokens head_dim"],
        k: Float[Tensor, "batch heads tokens head_dim"],
    ) -> Float[Tensor, "batch patches"]:
        """What the class token gives to each patch, the mean of the heads, in float32."""
        with torch.autocast(q.device.type, enabled=False):
            row = attention_row(q[:, :, :1].float(), k.float(), 0, scale=self.scale)
            return row.mean(1)[:, 1:]

    def queries(self, state: TokenState) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, those of patches left out set to zero."""
        q, k, v = self.project(state.tokens)
        if state.alive is None:
            return q, k, v
        rows = torch.cat([state.alive.new_ones(q.shape[0], 1), state.alive], 1)[:, None, :, None]
        return q * rows, k * rows, v * rows

    def gathers(self, tokens: int) -> bool:
        """Whether keys are gathered rather than masked: the same result, faster for many tokens."""
        return (
            tokens >= _MANY
            and self.score_threshold is None
            and not self.prune_rows
            and not self.pattern.listening
        )

    def budget(self, tokens: int) -> int:
        """How many keys a query attends to; never more than are left."""
        return min(math.ceil(self.keep_rate * tokens), self.live)

    def chosen(
        self, prediction: Prediction, alive: Bool[Tensor, "batch patches"] | None
    ) -> Int[Tensor, "batch heads patches budget"]:
        """The keys of largest score; of equal ones the first."""
        scores = _without(prediction.scores, alive)
        return top_positions(scores, self.budget(scores.shape[-1]), ascending=True)

    def mask(
        self, prediction: Prediction, alive: Bool[Tensor, "batch patches"] | None
    ) -> Bool[Tensor, "batch heads tokens tokens"]:
        """Which keys each query attends to; the class token's query to all."""
        scores = _without(prediction.scores, alive)
        if self.score_threshold is not None:
            mask = scores > self.score_threshold
        else:
            mask = torch.zeros_like(scores, dtype=torch.bool)
            mask = mask.scatter(-1, self.chosen(prediction, alive), True)
        if alive is not None and self.prune_rows:
            mask = mask & alive[:, None, :, None]
        return torch.cat([mask.new_ones(*mask.shape[:2], 1, mask.shape[-1]), mask], 2)


class SparseBlock(Block):
    """A block that can leave patches out for those that follow.

    Args:
        keeps: how many patches are left after it; None leaves all.
    """

    attn: SparseAttention

    def __init__(self, *args, keeps: int | None = None, **options):
        super().__init__(*args, **options)
        self.keeps = keeps

    def forward(self, state: TokenState) -> TokenState:
        """The new tokens."""
        q, k, v = self.attn.queries(state.with_tokens(self.norm1(state.tokens)))
        state = self.mixed(state, self.attn.attended(q, k, v, state.alive))
        if self.keeps is not None:
            state = replace(state, alive=_best(self.attn.ranks(q, k), state.alive, self.keeps))
        state = self.feed(state)
        if state.alive is None:
            return state
        first, patches = state.tokens[:, :1], state.patches
        return state.with_tokens(torch.cat([first, patches * state.alive[..., None]], 1))

    def dense(self, state: TokenState) -> tuple[TokenState, Tensor, Tensor]:
        """The block with all keys, its attention, and the predictor's approximation of it."""
        q, k, v = self.attn.queries(state.with_tokens(self.norm1(state.tokens)))
        scores = self.attn.mask_predictor(q, k, state.alive, dense=True).scores
        scale = self.attn.scale
        new = self.attn.proj(self.attn.attend(q, k, v, scale=scale).flatten(2))
        state = self.mixed(state, new)
        return self.feed(state), attention_weights(q, k, scale=scale), scores


class Sparsifiner(VisionTransformer):
    """A vision transformer whose queries attend to predicted keys only.

    Raises:
        ValueError: in `forward`, images of another size than the predictor was built for.

    Example:
        >>> config = SparsifinerConfig(16, patch_size=4, dim=16, depth=2, heads=2,
        ...                            top_coefficients=2, classes=5)
        >>> Sparsifiner(config)(torch.randn(2, 3, 16, 16)).shape
        torch.Size([2, 5])
    """

    config: SparsifinerConfig
    blocks: Any  # SparseBlocks
    antialias = False  # as the official code resizes a backbone's positions

    def make_block(self, index: int) -> SparseBlock:
        """A block with a predictor."""
        c = self.config
        keeps = c.entering(index + 1) if c.per_block("prunes_tokens")[index] else None
        return SparseBlock(
            c.dim, SparseAttention(c, index), self.make_mlp(index), norm_eps=c.norm_eps,
            layer_scale=c.layer_scale, dropout=c.dropout, drop_path=self.drop_path_rate(index),
            keeps=keeps,
        )  # fmt: skip

    def embed(self, images: Float[Tensor, "batch channels height width"]) -> TokenState:
        """The tokens that enter the first block."""
        sides = (images.shape[-2], images.shape[-1])
        if sides != self.config.image_sides:
            raise ValueError(
                f"the predictor was built for images of {self.config.image_sides} pixels, got "
                f"{sides}"
            )
        return super().embed(images)

    def reconstructed(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[tuple[Float[Tensor, "b h tokens tokens"], Float[Tensor, "b h patches tokens"]]]:
        """For each block, run with all keys, its attention and what the predictor makes of it."""
        state, maps = self.embed(images), []
        for block in self.blocks:
            state, weights, scores = block.dense(state)
            maps.append((weights, scores))
        return maps

    def predictor_parameters(self) -> list[str]:
        """Names of the predictors' parameters; all others are the backbone's."""
        return [name for name, _ in self.named_parameters() if "mask_predictor" in name]


def reconstruction_loss(
    maps: list[tuple[Float[Tensor, "b h tokens tokens"], Float[Tensor, "b h patches tokens"]]],
) -> Float[Tensor, ""]:
    """The squared error of the predicted maps, summed over each and averaged over the blocks.

    It grows with the batch and with the square of the tokens, as the official one does.
    """
    errors = [(scores - weights[:, :, 1:].detach()).square().sum() for weights, scores in maps]
    return torch.stack(errors).mean()


@torch.no_grad()
def chosen_keys(
    model: Sparsifiner, images: Float[Tensor, "batch channels height width"]
) -> list[tuple[Prediction, Bool[Tensor, "batch heads tokens tokens"]]]:
    """For each block what its predictor says, and which keys each query attends to."""
    found, hooks = [], []
    for block in model.blocks:

        def note(module, args, prediction, attn=block.attn):
            found.append((prediction, attn.mask(prediction, args[2] if len(args) > 2 else None)))

        hooks.append(block.attn.mask_predictor.register_forward_hook(note))
    model(images)
    for hook in hooks:
        hook.remove()
    return found


def sparsity(
    model: Sparsifiner, images: Float[Tensor, "batch channels height width"]
) -> list[dict[str, float]]:
    """For each block: zeros among basis, coefficients and weights, and multiplications saved.

    Args:
        model: in evaluation mode.
        images: over which shares are taken.

    Example:
        >>> config = SparsifinerConfig(16, patch_size=4, dim=16, depth=1, heads=2,
        ...                            keep_rates=(0.5,), top_coefficients=2)
        >>> shares = sparsity(config.build().eval(), torch.randn(2, 3, 16, 16))
        >>> round(shares[0]["attn_mask_sparsity"], 3)  # 16 queries of 17 have 9 of 17 keys
        0.443
    """
    rows = []
    for number, (prediction, mask) in enumerate(chosen_keys(model, images)):
        attn = model.blocks[number].attn
        parts = {
            "basis": prediction.basis,
            "basis_coef": prediction.coefficients,
            "attn_mask": mask,
        }
        shares = {f"{name}_sparsity": float((x == 0).float().mean()) for name, x in parts.items()}
        saved = saved_share(
            mask.shape[-1], attn.head_dim, attn.keep_rate,
            width=attn.mask_predictor.proj_c_q.out_features, size=len(prediction.basis),
            filled=1 - shares["basis_sparsity"],
            top=attn.mask_predictor.top_coefficients or len(prediction.basis),
        )  # fmt: skip
        rows.append({"block": number, **shares, "multiplications_saved": saved})
    return rows


def saved_share(tokens: int, head_dim: int, keep_rate: float, *, width: int, size: int,
                filled: float, top: int = 8) -> float:  # fmt: skip
    """The share of attention's multiplications that is saved, the predictor's counted.

    Args:
        tokens: the class token included.
        head_dim: features of a head.
        keep_rate: share of the keys.
        width: of the predictor.
        size: of its basis.
        filled: share of the basis that is not zero.
        top: coefficients kept.

    Source: counted from the official code.

    Example:
        >>> round(saved_share(197, 64, 0.25, width=32, size=32, filled=0.3), 3)
        0.484
    """
    n, d, b = tokens, head_dim, math.ceil(keep_rate * tokens)
    sparse = 2 * n * b * d + 2 * n * d * width + 2 * width * n * size + (n - 1) * top * n * filled
    return 1 - sparse / (2 * n * n * d)


def _without(scores: Tensor, alive: Tensor | None) -> Tensor:
    if alive is None:
        return scores
    seen = torch.cat([alive.new_ones(alive.shape[0], 1), alive], 1)
    return scores.masked_fill(~seen[:, None, None], float("-inf"))


def _best(ranks: Tensor, alive: Tensor | None, keeps: int) -> Tensor:
    if alive is not None:
        ranks = ranks.masked_fill(~alive, float("-inf"))
    return torch.zeros_like(ranks, dtype=torch.bool).scatter(1, top_positions(ranks, keeps), True)


VARIANTS = {
    "sparsifiner_tiny": SparsifinerConfig(),
    "sparsifiner_small": SparsifinerConfig(dim=384, heads=6),
    "sparsifiner_base": SparsifinerConfig(dim=768, heads=12),
}
