"""Causal Grassmann flows: tokens mix through the planes they span with a few earlier ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core_attn import Dropout, Tap, pluecker_mean

from .decoder import DecoderConfig, Embedding
from .parts import FeedForward


@dataclass(frozen=True, kw_only=True)
class GrassmannConfig(DecoderConfig):
    """Shape of a Grassmann language model; the defaults are the paper's six layers.

    The paper uses all offsets in every layer in its equations and lists repeated ones, which make
    sense one per layer only, in its settings: `schedule` gives each layer its own. Its parameter
    counts hold one dim x dim matrix per layer that its text does not mention: `out_proj`.

    Attributes:
        reduced: features of the states that span planes.
        offsets: distances to the earlier tokens, in every layer.
        schedule: the offsets of each layer in their place.
        hidden: features inside the feed-forward.
        norm: where the norms stand: "post" as in the paper, "pre" as in the reproduction.
        out_proj: whether a linear map follows the projected planes.
        eps: least norm of a plane.

    Source: Zhang, 2025, "Attention Is Not What You Need", arXiv 2512.19428.
    """

    vocab: int = 30522
    dim: int = 256
    depth: int = 6
    reduced: int = 32
    offsets: tuple[int, ...] = (1, 2, 4, 8, 12, 16)
    schedule: tuple[tuple[int, ...], ...] | None = None
    hidden: int = 1024
    norm: Literal["post", "pre"] = "post"
    out_proj: bool = False
    eps: float = 1e-8

    def __post_init__(self):
        """Refuses sizes and offsets that cannot be built."""
        super().__post_init__()
        if self.schedule is not None and len(self.schedule) != self.depth:
            raise ValueError(
                f"schedule must have one list of offsets per layer, {self.depth}, got "
                f"{len(self.schedule)}"
            )
        for offsets in self.schedule or (self.offsets,):
            if (
                not offsets
                or any(not isinstance(d, int) or d < 1 for d in offsets)
                or len(set(offsets)) < len(offsets)
            ):
                raise ValueError(f"offsets must be distinct positive integers, got {offsets}")
        if self.reduced < 2:
            raise ValueError(f"reduced must be 2 or more, got {self.reduced}")
        if self.norm not in ("post", "pre"):
            raise ValueError(f"norm must be 'post' or 'pre', got {self.norm!r}")

    @property
    def limit(self) -> int:
        """The number of learned positions."""
        return self.context

    def make_embedding(self) -> nn.Module:
        """Tokens and learned positions."""
        return Embedding(self.vocab, self.dim, self.context, self.dropout)

    def make_block(self, index: int) -> nn.Module:
        """Mixing and feed-forward."""
        offsets = self.offsets if self.schedule is None else self.schedule[index]
        mixing = GrassmannMixing(self.dim, self.reduced, offsets, self.out_proj, self.eps)
        kind = GrassmannPostBlock if self.norm == "post" else GrassmannPreBlock
        return kind(self.dim, mixing, FeedForward(self.dim, self.hidden), self.dropout)

    def make_final_norm(self) -> nn.Module:
        """None where the last block ends in one."""
        return nn.Identity() if self.norm == "post" else nn.LayerNorm(self.dim)

    def make_head(self) -> None:
        """The output matrix is that of the embedding."""


class GrassmannMixing(nn.Module):
    """alpha h + (1 - alpha) g, g projected from the mean plane of each state and its partners.

    Args:
        dim: features of the tokens.
        reduced: features of the states that span planes.
        offsets: distances to earlier tokens; below 0, to later ones.
        out_proj: whether a linear map follows the projected planes.
        eps: least norm of a plane.

    Source: Zhang, 2025, arXiv 2512.19428, section 3, with past partners: the text's z_{t+offset}
        shows the model the token it is to predict.

    Example:
        >>> import torch
        >>> mixed, state = GrassmannMixing(8, 4, (1, 2))(torch.randn(2, 5, 8))
        >>> mixed.shape, state.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 2, 4]))
    """

    def __init__(
        self,
        dim: int,
        reduced: int,
        offsets: Sequence[int],
        out_proj: bool = False,
        eps: float = 1e-8,
    ):
        super().__init__()
        self.offsets, self.eps = tuple(offsets), eps
        self.reduce = nn.Linear(dim, reduced)
        self.project = nn.Linear(reduced * (reduced - 1) // 2, dim)
        self.out = nn.Linear(dim, dim) if out_proj else nn.Identity()
        self.gate = nn.Linear(2 * dim, dim)
        self.flow, self.alpha = Tap(), Tap()

    def forward(
        self, h: Float[Tensor, "batch tokens dim"], state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The mixed tokens, and the last reduced states (batch, up to max(offsets), reduced)."""
        z = self.reduce(h)
        if state is not None:
            z = torch.cat((state, z), 1)
        tokens, new = z.shape[1], h.shape[1]
        planes = pluecker_mean(z, self.offsets, eps=self.eps)[:, tokens - new :]
        place = torch.arange(tokens - new, tokens, device=h.device)
        has_partner = torch.stack([(place >= d) & (place - d < tokens) for d in self.offsets]).any(
            0
        )
        g = self.flow(self.out(self.project(planes)) * has_partner[:, None])
        alpha = self.alpha(self.gate(torch.cat((h, g), -1)).sigmoid())
        return alpha * h + (1 - alpha) * g, z[:, -max(*self.offsets, 1) :]


class GrassmannPostBlock(nn.Module):
    """The paper's block: h = drop(norm(mix(h))); h = norm(h + feed_forward(h))."""

    def __init__(self, dim: int, mixing: nn.Module, feed_forward: nn.Module, dropout: float = 0.0):
        super().__init__()
        self.mixing, self.norm_mix = mixing, nn.LayerNorm(dim)
        self.feed_forward, self.norm = feed_forward, nn.LayerNorm(dim)
        self.drop = Dropout(dropout)

    def forward(self, h: Tensor, state: Tensor | None = None, valid: Tensor | None = None):
        """The tokens after the block, and its state."""
        mixed, state = self.mixing(h, state)
        h = self.drop(self.norm_mix(mixed))
        return self.norm(h + self.feed_forward(h)[0]), state


class GrassmannPreBlock(GrassmannPostBlock):
    """The reproduction's: h += drop(norm(mix(norm1(h)))); h += feed_forward(norm2(h))."""

    def __init__(self, dim: int, mixing: nn.Module, feed_forward: nn.Module, dropout: float = 0.0):
        super().__init__(dim, mixing, feed_forward, dropout)
        self.norm_in = nn.LayerNorm(dim)

    def forward(self, h: Tensor, state: Tensor | None = None, valid: Tensor | None = None):
        """The tokens after the block, and its state."""
        mixed, state = self.mixing(self.norm_in(h), state)
        h = h + self.drop(self.norm_mix(mixed))
        return h + self.feed_forward(self.norm(h))[0], state
