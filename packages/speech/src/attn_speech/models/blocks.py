"""The block of the encoder and of the decoder."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core_attn import Dropout, KeyValueCache, MultiHeadAttention

FeedForwardKind = Literal["linear", "conv1d", "conv1d-linear"]
NORM_EPS = 1e-12


class FeedForward(nn.Module):
    """Two layers with a ReLU between; linear, or convolutions over time.

    Args:
        dim: features, in and out.
        hidden: width between.
        kind: which of the layers are convolutions: none, both, or the first.
        kernel: of the convolutions, odd.
        dropout: probability of dropping a hidden unit, in training.
    """

    def __init__(self, dim: int, hidden: int, kind: FeedForwardKind, kernel: int, dropout: float):
        super().__init__()
        if kind != "linear" and kernel % 2 == 0:
            raise ValueError(f"feed_forward_kernel must be odd to keep the length, got {kernel}")
        is_conv = kind != "linear", kind == "conv1d"
        self.layer1 = _layer(dim, hidden, kernel if is_conv[0] else None)
        self.layer2 = _layer(hidden, dim, kernel if is_conv[1] else None)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        keep: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """Applies both; with `keep`, convolutions see zeros elsewhere."""
        hidden = _apply(self.layer1, x, keep).relu()
        return _apply(self.layer2, self.dropout(hidden), keep)


class StepCache(NamedTuple):
    """Keys and values of one decoder block: of the frames so far, and of the text."""

    own: KeyValueCache
    memory: KeyValueCache


class Block(nn.Module):
    """Self attention, in the decoder attention to the text, and a feed-forward network.

    Args:
        dim: features.
        heads: attention heads.
        hidden: width of the feed-forward network.
        feed_forward: its kind.
        kernel: of its convolutions.
        cross: whether it attends to a memory.
        pre_norm: whether branches, not their sums, are normalized.
        concat: whether a branch's query is joined to its result by a linear layer.
        dropout: of branches and hidden units.
        attention_dropout: of self attention's weights.
        cross_dropout: of the weights over the memory.

    Source: Li et al., 2019, arXiv 1809.08895, section 3.5; ESPnet for `concat`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        *,
        feed_forward: FeedForwardKind = "linear",
        kernel: int = 1,
        cross: bool = False,
        pre_norm: bool = True,
        concat: bool = False,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        cross_dropout: float = 0.1,
    ):
        super().__init__()
        self.pre_norm = pre_norm
        self.attn = MultiHeadAttention(dim, heads, dropout=attention_dropout)
        self.attn_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn_concat = nn.Linear(2 * dim, dim) if concat else None
        self.cross = self.cross_concat = None
        if cross:
            self.cross = MultiHeadAttention(dim, heads, context_dim=dim, dropout=cross_dropout)
            self.cross_norm = nn.LayerNorm(dim, eps=NORM_EPS)
            self.cross_concat = nn.Linear(2 * dim, dim) if concat else None
        self.feed_forward = FeedForward(dim, hidden, feed_forward, kernel, dropout)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        memory: Float[Tensor, "batch tokens dim"] | None = None,
        *,
        lengths: Int[Tensor, " batch"] | None = None,
        memory_lengths: Int[Tensor, " batch"] | None = None,
        memory_mask: Bool[Tensor, "batch heads time tokens"] | None = None,
        keep: Bool[Tensor, "batch time"] | None = None,
        cache: StepCache | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """Applies the block; with a memory, self attention is causal."""
        own, of_memory = cache or (None, None)

        def attend(h: Tensor) -> Tensor:
            return self.attn(h, lengths=lengths, causal=self.cross is not None, cache=own)

        x = self._add(x, self.attn_norm, attend, self.attn_concat)
        if self.cross is not None:
            cross = self.cross

            def read(h: Tensor) -> Tensor:
                return cross(h, memory, lengths=memory_lengths, mask=memory_mask, cache=of_memory)

            x = self._add(x, self.cross_norm, read, self.cross_concat)
        return self._add(x, self.feed_forward_norm, lambda h: self.feed_forward(h, keep), None)

    def _add(
        self,
        x: Tensor,
        norm: nn.LayerNorm,
        branch: Callable[[Tensor], Tensor],
        concat: nn.Linear | None,
    ) -> Tensor:
        h = norm(x) if self.pre_norm else x
        y = branch(h)
        y = self.dropout(y) if concat is None else concat(torch.cat([h, y], -1))
        return x + y if self.pre_norm else norm(x + y)


def _layer(dim: int, out: int, kernel: int | None) -> nn.Linear | nn.Conv1d:
    if kernel is None:
        return nn.Linear(dim, out)
    return nn.Conv1d(dim, out, kernel, padding=kernel // 2)


def _apply(layer: nn.Linear | nn.Conv1d, x: Tensor, keep: Tensor | None) -> Tensor:
    if isinstance(layer, nn.Linear):
        return layer(x)
    if layer.weight.shape[-1] == 1:  # the same product, without turning the tensor twice
        return nn.functional.linear(x, layer.weight[..., 0], layer.bias)
    if keep is not None:
        x = x.masked_fill(~keep[..., None], 0.0)
    return layer(x.transpose(1, 2)).transpose(1, 2)
