"""LAMA: a bidirectional GRU whose states are pooled by low-rank bilinear attention."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from core_attn import Dropout, Tap

from .decoder import check_ids, check_sizes, valid_tokens


@dataclass(frozen=True, kw_only=True)
class LamaConfig:
    """Shape of a LAMA classifier.

    Attributes:
        vocab: number of token ids.
        classes: outputs.
        dim: features of an embedded token.
        hidden: features of the GRU in each direction.
        heads: distributions over the words.
        context: what words are compared with: the "mean" of the text's states, or a "learned"
            vector.
        pool: "lama", or the "mean" of the states, the baseline.
        dropout: probability of dropping a feature before and after the GRU, in training.
    """

    vocab: int = 256
    classes: int = 2
    dim: int = 64
    hidden: int = 32
    heads: int = 8
    context: Literal["mean", "learned"] = "mean"
    pool: Literal["lama", "mean"] = "lama"
    dropout: float = 0.3

    def __post_init__(self):
        """Refuses sizes that cannot be built."""
        check_sizes(self)
        if self.pool not in ("lama", "mean"):
            raise ValueError(f"pool must be 'lama' or 'mean', got {self.pool!r}")

    def build(self) -> "Lama":
        """The model, untrained."""
        return Lama(self)


class Pooled(NamedTuple):
    """Pooled states (batch, heads, dim) and the weights (batch, heads, tokens) that made them."""

    states: Tensor
    weights: Tensor


class LowRankPooling(nn.Module):
    """Distributions over words from rank-one bilinear forms with one context vector.

    f_it = tanh((P^T c)_i (Q^T h_t)_i), normed over the heads i; weights are its softmax over t.

    Args:
        dim: features of the states.
        heads: distributions, 2 or more: with one, the norm leaves a sign only.
        context: the "mean" of the states, or a "learned" vector.

    Source: Mehta et al., 2019, "Low Rank Factorization for Compact Multi-Head Self-Attention",
        arXiv 1912.00835, section 3.

    Example:
        >>> import torch
        >>> pooled = LowRankPooling(6, heads=3)(torch.randn(2, 5, 6))
        >>> pooled.states.shape, pooled.weights.shape
        (torch.Size([2, 3, 6]), torch.Size([2, 3, 5]))
    """

    def __init__(self, dim: int, heads: int, context: Literal["mean", "learned"] = "mean"):
        super().__init__()
        if heads < 2:
            raise ValueError(f"heads must be 2 or more, got {heads}: the norm over one is a sign")
        if context not in ("mean", "learned"):
            raise ValueError(f"context must be 'mean' or 'learned', got {context!r}")
        self.p, self.q = (nn.Parameter(torch.empty(dim, heads)) for _ in range(2))
        for weight in (self.p, self.q):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self.c = nn.Parameter(torch.randn(dim) * dim**-0.5) if context == "learned" else None
        self.pattern = Tap()

    def forward(
        self,
        h: Float[Tensor, "batch tokens dim"],
        valid: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Pooled:
        """Pools the states; a text without a valid token gives zeros."""
        if valid is None:
            valid = h.new_ones(h.shape[:2], dtype=torch.bool)
        h = h.masked_fill(~valid[..., None], 0.0)  # also where padding holds NaN
        if self.c is None:
            c = h.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
        else:
            c = self.c.expand(h.shape[0], -1)
        f = ((c @ self.p)[:, None] * (h @ self.q)).tanh()
        f = f * f.square().sum(-1, keepdim=True).clamp(min=1e-24).rsqrt()
        f = f.masked_fill(~valid[..., None], -torch.inf)
        weights = f.softmax(1).masked_fill(~valid[..., None], 0.0).transpose(1, 2)
        weights = self.pattern(weights[:, :, None])[:, :, 0]
        return Pooled(weights @ h, weights)


class Lama(nn.Module):
    """Token ids -> class scores: embedding, bidirectional GRU, pooling, one linear map.

    Example:
        >>> import torch
        >>> model = LamaConfig(vocab=20, classes=3, dim=8, hidden=4, heads=2).build()
        >>> model(torch.randint(20, (2, 5)), torch.tensor([5, 3])).shape
        torch.Size([2, 3])
    """

    def __init__(self, config: LamaConfig):
        super().__init__()
        self.config = config
        dim = 2 * config.hidden
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.gru = nn.GRU(config.dim, config.hidden, batch_first=True, bidirectional=True)
        is_lama = config.pool == "lama"
        self.pool = LowRankPooling(dim, config.heads, config.context) if is_lama else None
        self.drop = Dropout(config.dropout)
        self.head = nn.Linear(config.heads * dim if is_lama else dim, config.classes)

    def states(
        self, ids: Int[Tensor, "batch tokens"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """The GRU's states, both directions; padding is not read."""
        x = self.drop(self.embed(ids))
        if lengths is None:
            return self.gru(x)[0]
        read = lengths.clamp(min=1).cpu()
        packed = pack_padded_sequence(x, read, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], True, total_length=ids.shape[1])[0]

    def forward(
        self, ids: Int[Tensor, "batch tokens"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Class scores.

        Raises:
            TypeError: ids are not integers.
            ValueError: an id is outside the vocabulary, or lengths do not fit the ids.
        """
        check_ids(ids, self.config.vocab)
        valid = valid_tokens(ids, lengths)
        h = self.drop(self.states(ids, lengths))
        if self.pool is not None:
            return self.head(self.pool(h, valid).states.flatten(1))
        if valid is None:
            return self.head(h.mean(1))
        total = h.masked_fill(~valid[..., None], 0.0).sum(1)
        return self.head(total / valid.sum(1, keepdim=True).clamp(min=1))
