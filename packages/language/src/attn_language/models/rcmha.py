"""RCMHA: attention with relative positions and convolved heads, and its three relatives."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import AttentionLayer

from .decoder import DecoderConfig, Embedding, PreNormBlock, State
from .parts import FeedForward, split_heads


@dataclass(frozen=True, kw_only=True)
class RCMHAConfig(DecoderConfig):
    """Shape of a language model with RCMHA; two flags give MHA, MDHA, RMHA.

    Attributes:
        heads: attention heads.
        hidden: features inside the feed-forward.
        conv: whether queries, keys and values are convolved (MDHA, RCMHA).
        relative: whether scores have relative terms (RMHA, RCMHA); else positions are learned.
        max_distance: farthest distance between a query and a key; the official tables have 4096.
        memory: tokens of earlier segments that `next_segment` keeps.
        carry_conv: whether the queries' convolution goes on over segments. The official code
            begins it anew, so that a text read in segments differs from one read at once.

    Source: Sugiharto et al., 2023, "RCMHA", arXiv 2308.03429; Dai et al., 2019,
        "Transformer-XL", arXiv 1901.02860; So et al., 2021, "Primer", arXiv 2109.08668.
    """

    heads: int = 4
    hidden: int = 128
    conv: bool = True
    relative: bool = True
    max_distance: int = 4096
    memory: int = 32
    carry_conv: bool = False

    def __post_init__(self):
        """Refuses sizes that cannot be built."""
        super().__post_init__()
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by {self.heads} heads")

    @property
    def limit(self) -> int | None:
        """The number of learned positions, where there are such."""
        return None if self.relative else self.context

    @property
    def reach(self) -> int:
        """What the tables of distances hold, where there are such."""
        return self.max_distance + 1 if self.relative else self.context

    def make_embedding(self) -> nn.Module:
        """Tokens, and learned positions where they are not relative."""
        return Embedding(self.vocab, self.dim, None if self.relative else self.context)

    def make_block(self, index: int) -> nn.Module:
        """Attention over memory and segment, and feed-forward."""
        attention = ConvolvedAttention(
            self.dim, self.heads, conv=self.conv, dropout=self.dropout,
            max_distance=self.max_distance if self.relative else None,
        )  # fmt: skip
        feed_forward = FeedForward(self.dim, self.hidden, "relu")
        return MemoryBlock(
            nn.LayerNorm(self.dim), attention, nn.LayerNorm(self.dim), feed_forward, self.dropout
        )

    def make_head(self) -> nn.Linear:
        """The output matrix, with bias."""
        return nn.Linear(self.dim, self.vocab)


class Read(NamedTuple):
    """The inputs of a block so far, (batch, tokens, dim), and where its segment begins in them."""

    inputs: Tensor
    start: int


def next_segment(state: State, config: RCMHAConfig) -> State:
    """Ends a segment: what was read becomes memory, without gradients, its last tokens only.

    Source: Dai et al., 2019, arXiv 1901.02860, section 3.2.
    """
    blocks = []
    for read in state.blocks:
        kept = read.inputs[:, max(read.inputs.shape[1] - config.memory, 0) :].detach()
        blocks.append(Read(kept, 0 if config.carry_conv else kept.shape[1]))
    return state._replace(blocks=tuple(blocks))


class CausalConv(nn.Module):
    """Three taps along the tokens, one set of filters for all heads.

    Example:
        >>> import torch
        >>> CausalConv(4)(torch.randn(2, 3, 5, 4)).shape
        torch.Size([2, 3, 5, 4])
    """

    def __init__(self, dim: int):
        super().__init__()
        like = nn.Conv1d(dim, dim, 3, groups=dim)
        self.weight = nn.Parameter(like.weight.detach()[:, 0])
        self.bias = nn.Parameter(like.bias.detach())  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, x: Float[Tensor, "batch heads tokens dim"]) -> Tensor:
        """Tokens before the first are zeros."""
        x = F.pad(x, (0, 0, 2, 0))
        a, b, c = self.weight.unbind(1)
        return self.bias + a * x[:, :, :-2] + b * x[:, :, 1:-1] + c * x[:, :, 2:]


class ConvolvedAttention(AttentionLayer):
    """Causal attention with convolved queries, keys and values, and learned relative terms.

    Scores are (q_i + u) . k_j + q_i . R_{i-j} + S_{i-j}, all times head_dim^-1/2.

    Args:
        dim: features of the tokens.
        heads: attention heads.
        conv: whether there are convolutions.
        max_distance: rows of the tables R and S are twice as many; None for no relative terms.
        dropout: probability of dropping a weight, in training.

    Source: Sugiharto et al., 2023, arXiv 2308.03429; the tables as in labml's Transformer-XL.

    Example:
        >>> import torch
        >>> layer = ConvolvedAttention(8, heads=2, max_distance=16)
        >>> layer(torch.randn(1, 5, 8), queries=3, start=2).shape
        torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        conv: bool = True,
        max_distance: int | None = 4096,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.num_heads, self.head_dim, self.dropout = heads, dim // heads, dropout
        self.max_distance = max_distance
        self.query, self.key = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.value, self.output = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.conv_q, self.conv_k, self.conv_v = (
            CausalConv(self.head_dim) if conv else nn.Identity() for _ in range(3)
        )
        if max_distance is not None:
            rows = 2 * max_distance
            self.distance = nn.Parameter(torch.zeros(rows, heads, self.head_dim))
            self.distance_bias = nn.Parameter(torch.zeros(rows, heads))
            self.query_bias = nn.Parameter(torch.zeros(heads, self.head_dim))

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], queries: int, start: int
    ) -> Float[Tensor, "batch queries dim"]:
        """The last `queries` tokens attend to all tokens up to themselves.

        Args:
            x: memory and segment.
            queries: how many tokens ask.
            start: where the queries' convolution begins, with zeros before.

        Raises:
            ValueError: a distance exceeds `max_distance`.
        """
        tokens = x.shape[1]
        first = tokens - queries
        seen = max(start, first - 2)  # what the convolution of the first query reaches
        q = self.conv_q(split_heads(self.query(x[:, seen:]), self.head_dim))[:, :, first - seen :]
        k = self.conv_k(split_heads(self.key(x), self.head_dim))
        v = self.conv_v(split_heads(self.value(x), self.head_dim))
        scale, bias = self.head_dim**-0.5, None
        if self.max_distance is not None:
            if tokens - 1 > self.max_distance:
                raise ValueError(f"distance {tokens - 1} exceeds max_distance {self.max_distance}")
            rows = slice(self.max_distance - tokens + 1, self.max_distance + 1)
            relative = (
                q @ self.distance[rows].permute(1, 2, 0) + self.distance_bias[rows].T[:, None]
            )
            bias = scale * by_distance(relative)
            q = q + self.query_bias[:, None]
        heads = self.attend(q, k, v, bias=bias, causal=True, scale=scale, dropout=self.dropout)
        return self.output(heads.flatten(-2))


def by_distance(x: Float[Tensor, "*batch queries keys"]) -> Float[Tensor, "*batch queries keys"]:
    """Moves columns from distances to keys.

    Column c of `x` belongs to distance keys - 1 - c; of the result, to key c. The last query
    stands at the last key; keys after a query get what must not be read.

    Example:
        >>> import torch
        >>> by_distance(torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]]))
        tensor([[1., 0., 2.],
                [2., 1., 0.]])
    """
    queries, keys = x.shape[-2:]
    if keys == 1:
        return x
    return x.flatten(-2)[..., queries - 1 :].unfold(-1, keys, keys - 1)


class MemoryBlock(PreNormBlock):
    """A pre-normed block whose attention sees the inputs of earlier tokens, under the same norm."""

    def forward(self, x: Tensor, state: Read | None = None, valid: Tensor | None = None):
        """The tokens after the block, and what was read."""
        before = Read(x[:, :0], 0) if state is None else state
        read = Read(torch.cat((before.inputs, x), 1), before.start)
        x = x + self.drop(self.mixer(self.norm1(read.inputs), x.shape[1], read.start))
        return x + self.drop(self.feed_forward(self.norm2(x))[0]), read
