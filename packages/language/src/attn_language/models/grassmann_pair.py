"""Which of several relations two sentences have, from given features, by Grassmann mixing."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core_attn import Dropout, Tap, pluecker_mean

from .grassmann import GrassmannPostBlock
from .parts import FeedForward


@dataclass(frozen=True, kw_only=True)
class GrassmannPairConfig:
    """Shape of the head on frozen features of two sentences, as for SNLI.

    The paper names sizes but not how pairs are grouped into heads, which partners a token has or
    how sentences are pooled: what is here is this project's reading.

    Attributes:
        features: of a given token, 768 for DistilBERT.
        classes: relations.
        dim: features inside.
        depth: mixing blocks.
        heads: maps to states that span planes of their own.
        reduced: features of these states over all heads.
        offsets: distances to partners, on both sides.
        hidden: features inside the feed-forward.
        dropout: probability of dropping a feature, in training.

    Source: Zhang, 2025, "Attention Is Not What You Need", arXiv 2512.19428, SNLI experiments.
    """

    features: int = 768
    classes: int = 3
    dim: int = 256
    depth: int = 2
    heads: int = 4
    reduced: int = 64
    offsets: tuple[int, ...] = (1, 2, 4)
    hidden: int = 512
    dropout: float = 0.1

    def __post_init__(self):
        """Refuses sizes and offsets that cannot be built."""
        if self.heads < 1 or self.reduced % self.heads or self.reduced // self.heads < 2:
            raise ValueError(
                f"reduced must be 2 or more features for each of {self.heads} heads, "
                f"got {self.reduced}"
            )
        if not self.offsets or any(d < 1 for d in self.offsets):
            raise ValueError(f"offsets must be positive integers, got {self.offsets}")
        if len(set(self.offsets)) < len(self.offsets):
            raise ValueError(f"offsets must be distinct, got {self.offsets}")

    def build(self) -> "GrassmannPair":
        """The head, untrained."""
        return GrassmannPair(self)


class PairMixing(nn.Module):
    """alpha h + (1 - alpha) g, g projected from the planes that all heads' states span.

    Args:
        config: of the head.
    """

    def __init__(self, config: GrassmannPairConfig):
        super().__init__()
        self.heads = config.heads
        self.offsets = tuple(sign * d for d in config.offsets for sign in (1, -1))
        r = config.reduced // config.heads
        self.reduce = nn.Linear(config.dim, config.reduced)
        self.project = nn.Linear(config.heads * r * (r - 1) // 2, config.dim)
        self.gate = nn.Linear(2 * config.dim, config.dim)
        self.flow, self.alpha = Tap(), Tap()

    def forward(
        self, h: Float[Tensor, "batch tokens dim"], valid: Bool[Tensor, "batch tokens"]
    ) -> tuple[Tensor, Bool[Tensor, "batch tokens"]]:
        """The mixed tokens; partners in the padding do not count."""
        batch, tokens, _ = h.shape
        z = self.reduce(h).masked_fill(~valid[..., None], 0.0)
        z = z.unflatten(2, (self.heads, -1)).transpose(1, 2).flatten(0, 1)
        planes = pluecker_mean(z, self.offsets).unflatten(0, (batch, self.heads))
        place = torch.arange(tokens, device=h.device)
        partner = place[:, None] - torch.tensor(self.offsets, device=h.device)
        exists = (partner >= 0) & (partner < tokens)
        real = exists & valid[:, partner.clamp(0, tokens - 1)]
        share = exists.sum(-1) / real.sum(-1).clamp(min=1)  # of the mean, over partners there are
        planes = planes.transpose(1, 2).flatten(2) * share[..., None].to(planes.dtype)
        g = self.flow(self.project(planes) * real.any(-1)[..., None])
        alpha = self.alpha(self.gate(torch.cat((h, g), -1)).sigmoid())
        return alpha * h + (1 - alpha) * g, valid


class GrassmannPair(nn.Module):
    """Features of two sentences -> scores of their relation.

    Example:
        >>> import torch
        >>> config = GrassmannPairConfig(features=12, dim=8, reduced=8, heads=2, hidden=16)
        >>> premise, hypothesis = torch.randn(2, 3, 6, 12)
        >>> config.build()(premise, hypothesis, torch.tensor([6, 2, 4])).shape
        torch.Size([3, 3])
    """

    def __init__(self, config: GrassmannPairConfig):
        super().__init__()
        self.config = config
        self.inward = nn.Linear(config.features, config.dim)
        self.blocks = nn.ModuleList(
            GrassmannPostBlock(
                config.dim, PairMixing(config), FeedForward(config.dim, config.hidden),
                config.dropout,
            )
            for _ in range(config.depth)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Linear(4 * config.dim, config.dim), nn.GELU(), Dropout(config.dropout),
            nn.Linear(config.dim, config.classes),
        )  # fmt: skip

    def sentence(
        self, x: Float[Tensor, "batch tokens features"], lengths: Tensor | None = None
    ) -> Float[Tensor, "batch dim"]:
        """The mean of a sentence's mixed tokens, padding left out; zeros for an empty one.

        Raises:
            ValueError: features or lengths do not fit.
        """
        batch, tokens, features = x.shape
        if features != self.config.features:
            raise ValueError(
                f"tokens have {features} features, the head takes {self.config.features}"
            )
        if lengths is None:
            lengths = torch.full((batch,), tokens, device=x.device)
        if lengths.shape != (batch,) or int(lengths.max()) > tokens or int(lengths.min()) < 0:
            raise ValueError(
                f"lengths must be {batch} numbers from 0 to {tokens}, got {lengths.tolist()}"
            )
        valid = torch.arange(tokens, device=x.device) < lengths[:, None]
        h = self.inward(x.masked_fill(~valid[..., None], 0.0))
        for block in self.blocks:
            h, _ = block(h, valid)
        h = h.masked_fill(~valid[..., None], 0.0)
        return h.sum(1) / lengths.clamp(min=1)[:, None]

    def forward(
        self,
        premise: Float[Tensor, "batch tokens features"],
        hypothesis: Float[Tensor, "batch others features"],
        premise_lengths: Tensor | None = None,
        hypothesis_lengths: Tensor | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Scores of the relations."""
        u = self.sentence(premise, premise_lengths)
        v = self.sentence(hypothesis, hypothesis_lengths)
        return self.head(torch.cat((u, v, (u - v).abs(), u * v), -1))
