"""The plain Transformer decoder: baseline, and container of LLaMA-family checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from torch import Tensor, nn

from core_attn import AttentionLayer

from .decoder import DecoderConfig, Embedding, ParallelBlock, PostNormBlock, PreNormBlock
from .parts import Activation, FeedForward, GatedFeedForward, Growing, Rope, split_heads


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(DecoderConfig):
    """Shape of a Transformer decoder; the defaults are GPT's form, small.

    Attributes:
        heads: query heads.
        kv_heads: key and value heads; as many as `heads` by default.
        head_dim: features of a head; dim / heads by default.
        hidden: features inside the feed-forward; 4 dim by default.
        positions: how tokens know their place.
        rope_base: of the rotary wavelengths.
        rope_factors: by which these are stretched, one per pair of features of a head, as
            checkpoints of long contexts have them.
        norm: LayerNorm ("layer"), the same without bias ("scale"), or RMSNorm ("rms").
        norm_eps: of the norms.
        activation: of the feed-forward.
        gated: whether the feed-forward has a gate (SwiGLU with "silu").
        block: where the norms stand.
        qkv_bias: whether the projections to queries, keys and values have biases.
        out_bias: whether the attention's output projection has one.
        bias: whether the feed-forward has biases.
        tied: whether the output matrix is that of the embedding.
        causal: whether a token sees earlier ones only; False makes an encoder.
    """

    heads: int = 4
    kv_heads: int | None = None
    head_dim: int | None = None
    hidden: int | None = None
    positions: Literal["learned", "rotary", "none"] = "learned"
    rope_base: float = 10000.0
    rope_factors: tuple[float, ...] | None = None
    norm: Literal["layer", "scale", "rms"] = "layer"
    norm_eps: float = 1e-5
    activation: Activation = "gelu"
    gated: bool = False
    block: Literal["pre", "post", "parallel"] = "pre"
    qkv_bias: bool = True
    out_bias: bool = True
    bias: bool = True
    tied: bool = True
    causal: bool = True

    def __post_init__(self):
        """Refuses sizes that cannot be built."""
        super().__post_init__()
        if self.head_dim is None and self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by {self.heads} heads")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"heads {self.heads} is not divisible by kv_heads {self.kv_heads}")
        if self.positions == "rotary" and self.features_per_head % 2:
            raise ValueError(f"rotary needs an even head_dim, got {self.features_per_head}")
        if self.rope_factors and len(self.rope_factors) != self.features_per_head // 2:
            raise ValueError(
                f"{len(self.rope_factors)} rope_factors given for {self.features_per_head // 2} "
                "pairs of features"
            )
        for name, allowed in (
            ("positions", ("learned", "rotary", "none")),
            ("norm", ("layer", "scale", "rms")),
            ("block", ("pre", "post", "parallel")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")

    @property
    def features_per_head(self) -> int:
        """The features of a head."""
        return self.head_dim or self.dim // self.heads

    @cached_property
    def rope(self) -> Rope | None:
        """The rotary wavelengths, where positions are rotary; one object for all layers."""
        return Rope(self.rope_base, self.rope_factors) if self.positions == "rotary" else None

    @property
    def limit(self) -> int | None:
        """The context, where positions are limited by it."""
        return None if self.positions == "none" else self.context

    @property
    def exact_steps(self) -> bool:
        """Not where later tokens are seen."""
        return self.causal

    def make_embedding(self) -> nn.Module:
        """Tokens, and learned positions."""
        positions = self.context if self.positions == "learned" else None
        return Embedding(self.vocab, self.dim, positions, self.dropout)

    def make_norm(self) -> nn.Module:
        """A norm of the kind chosen."""
        if self.norm == "rms":
            return nn.RMSNorm(self.dim, eps=self.norm_eps)
        return nn.LayerNorm(self.dim, eps=self.norm_eps, bias=self.norm == "layer")

    def head_maps(self, index: int) -> tuple[Sequence[int], Sequence[int]]:
        """For every query head of block `index`, the key head and the value head it reads."""
        stored = self.kv_heads or self.heads
        shared = [head * stored // self.heads for head in range(self.heads)]
        return shared, shared

    def make_mixer(self, index: int) -> nn.Module:
        """The attention of block `index`."""
        k_map, v_map = self.head_maps(index)
        return SelfAttention(
            self.dim, self.features_per_head, k_map, v_map, rope=self.rope,
            qkv_bias=self.qkv_bias, out_bias=self.out_bias, dropout=self.dropout,
            causal=self.causal,
        )  # fmt: skip

    def make_feed_forward(self) -> nn.Module:
        """The feed-forward of every block."""
        kind = GatedFeedForward if self.gated else FeedForward
        return kind(self.dim, self.hidden or 4 * self.dim, self.activation, self.bias)

    def make_block(self, index: int) -> nn.Module:
        """The mixer and the feed-forward, with norms where the configuration wants them."""
        mixer, feed_forward = self.make_mixer(index), self.make_feed_forward()
        if self.block == "parallel":
            return ParallelBlock(self.make_norm(), mixer, feed_forward, self.dropout)
        kind = PostNormBlock if self.block == "post" else PreNormBlock
        return kind(self.make_norm(), mixer, self.make_norm(), feed_forward, self.dropout)

    def make_final_norm(self) -> nn.Module:
        """A norm like the others; none where the last block ends in one."""
        return nn.Identity() if self.block == "post" else self.make_norm()

    def make_head(self) -> nn.Linear | None:
        """The output matrix, without bias."""
        return None if self.tied else nn.Linear(self.dim, self.vocab, bias=False)


class Cache(NamedTuple):
    """Keys and values of the tokens read so far, (batch, heads, tokens, features) each."""

    k: Growing
    v: Growing


def extended(cache: Cache | None, k: Tensor, v: Tensor) -> Cache:
    """The cache with the keys and values of more tokens."""
    if cache is None:
        return Cache(Growing(k), Growing(v))
    return Cache(cache.k.extend(k), cache.v.extend(v))


class SelfAttention(AttentionLayer):
    """Self attention whose query heads share key heads and value heads as two maps say.

    Args:
        dim: features of the tokens.
        head_dim: features of a head.
        k_map: for every query head, the key head it reads.
        v_map: for every query head, the value head it reads.
        rope: the wavelengths of rotary positions on queries and keys; None for no such positions.
        qkv_bias: whether the projections to queries, keys and values have biases.
        out_bias: whether the output projection has one.
        dropout: probability of dropping a weight, in training.
        causal: whether a token sees earlier ones only.

    Source: Vaswani et al., 2017, "Attention Is All You Need", arXiv 1706.03762, section 3.2.2.

    Example:
        >>> import torch
        >>> layer = SelfAttention(16, 4, k_map=[0, 0, 1, 1], v_map=[0, 1, 1, 0])
        >>> y, cache = layer(torch.randn(2, 5, 16))
        >>> y.shape, cache.k.x.shape
        (torch.Size([2, 5, 16]), torch.Size([2, 2, 5, 4]))
    """

    def __init__(
        self,
        dim: int,
        head_dim: int,
        k_map: Sequence[int],
        v_map: Sequence[int],
        *,
        rope: Rope | None = None,
        qkv_bias: bool = True,
        out_bias: bool = True,
        dropout: float = 0.0,
        causal: bool = True,
    ):
        super().__init__()
        self.causal = causal
        self.num_heads, self.head_dim = len(k_map), head_dim
        self.k_map, self.v_map = list(k_map), list(v_map)
        self._maps = _unless_consecutive(self.k_map), _unless_consecutive(self.v_map)
        self.sizes = [len(k_map), max(k_map) + 1, max(v_map) + 1]
        self.rope, self.dropout = rope, dropout
        self.qkv = nn.Linear(dim, sum(self.sizes) * head_dim, bias=qkv_bias)
        self.out = nn.Linear(self.num_heads * head_dim, dim, bias=out_bias)

    def forward(self, x: Tensor, state: Cache | None = None, valid: Tensor | None = None):
        """The attended tokens (batch, tokens, dim), and the cache with their keys and values."""
        queries, keys, values = self.sizes
        qk, v = split_heads(self.project(x), self.head_dim).split((queries + keys, values), 1)
        if self.rope is not None:
            start = 0 if state is None else state.k.x.shape[-2]
            qk = self.rope.turn(qk, start)
        q, k = qk.split((queries, keys), 1)
        cache = extended(state, k, v)
        mask = None if self.causal or valid is None else valid[:, None, None]
        heads = self.attend(
            q, cache.k.x, cache.v.x, causal=self.causal, mask=mask, dropout=self.dropout,
            k_head_map=self._maps[0], v_head_map=self._maps[1],
        )  # fmt: skip
        return self.out(heads.flatten(-2)), cache

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values of the tokens, one beside the other."""
        return self.qkv(x)


def _unless_consecutive(head_map: list[int]) -> list[int] | None:
    """A map of heads; None for that of consecutive heads in equal groups, which needs no check."""
    heads, stored = len(head_map), max(head_map) + 1
    plain = heads % stored == 0 and head_map == [i * stored // heads for i in range(heads)]
    return None if plain else head_map
