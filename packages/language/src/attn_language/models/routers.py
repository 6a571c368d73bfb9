"""Which tokens each expert of a Union of Experts processes."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import Tap, top_positions


class Selection(NamedTuple):
    """Which tokens each expert processes, in ascending order.

    Attributes:
        index: (batch, experts, chosen), positions.
        valid: False where there are fewer; None for all valid.
        scale: what the expert's outputs are multiplied by; None for 1.
        experts: (batch, chosen experts), whose tokens these are; None for all experts in order.
    """

    index: Int[Tensor, "batch experts chosen"]
    valid: Bool[Tensor, "batch experts chosen"] | None
    scale: Float[Tensor, "batch experts chosen"] | None
    experts: Int[Tensor, "batch experts"] | None = None


class Router(nn.Module):
    """Scores every token with every expert.

    Args:
        dim: features of the tokens.
        experts: to choose among.
        per_token: how many a token takes.
        scaled: whether outputs are scaled by the scores.
    """

    def __init__(self, dim: int, experts: int, per_token: int, scaled: bool = False):
        super().__init__()
        self.gate = nn.Linear(dim, experts)
        self.per_token, self.scaled = per_token, scaled
        self.scores = Tap()

    def probabilities(self, x: Float[Tensor, "batch tokens dim"]) -> Tensor:
        """(batch, tokens, experts), in float32 or more."""
        wide = torch.promote_types(x.dtype, torch.float32)
        bias = self.gate.bias.to(wide)
        return F.linear(x.to(wide), self.gate.weight.to(wide), bias).softmax(-1)

    def taken(self, scores: Float[Tensor, "batch tokens experts"]) -> Tensor:
        """True at each token's best experts; of equals, the first."""
        best = top_positions(scores, self.per_token)
        return F.one_hot(best, scores.shape[-1]).sum(-2).bool()

    def scale_of(self, scores: Tensor, index: Tensor, x: Tensor) -> Tensor | None:
        """The scores of the chosen tokens, where outputs are scaled."""
        return scores.transpose(1, 2).gather(2, index).to(x.dtype) if self.scaled else None

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Selection:
        """Chooses each expert's tokens; padding is not chosen."""
        raise NotImplementedError


class TokenRouter(Router):
    """Each token takes its best experts: what it gets does not depend on later tokens.

    Example:
        >>> import torch
        >>> chosen = TokenRouter(8, experts=4, per_token=2)(torch.randn(1, 6, 8))
        >>> int(chosen.valid.sum())
        12
    """

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Selection:
        """Chooses each expert's tokens."""
        scores = self.scores(self.probabilities(x))
        taken = self.taken(scores)
        if valid is not None:
            taken = taken & valid[..., None]
        taken = taken.transpose(1, 2)
        most = x.shape[1]
        order = (torch.arange(most, device=x.device) + most * ~taken).argsort(-1)
        if not torch.compiler.is_compiling():  # no shape may depend on values
            # Products of 16 rows, 32, ...: how many others there are then rounds no row.
            most = min(-(-max(int(taken.sum(-1).max()), 1) // 16) * 16, most)
        index = order[..., :most]
        return Selection(index, taken.gather(2, index), self.scale_of(scores, index, x))


class ExpertRouter(Router):
    """Each expert takes the tokens of a sample that score best, as many as if all chose evenly.

    Example:
        >>> import torch
        >>> chosen = ExpertRouter(8, experts=4, per_token=2)(torch.randn(1, 6, 8))
        >>> chosen.index.shape
        torch.Size([1, 4, 3])
    """

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Selection:
        """Chooses each expert's tokens."""
        scores = self.scores(self.probabilities(x))
        (batch, tokens), experts = x.shape[:2], scores.shape[-1]
        if valid is None:
            valid = x.new_ones(batch, tokens, dtype=torch.bool)
        share = -(-valid.sum(1) * self.per_token // experts)
        most = -(-tokens * self.per_token // experts)
        masked = scores.masked_fill(~valid[..., None], -1.0).transpose(1, 2)
        best = top_positions(masked, most)
        kept = torch.arange(most, device=x.device) < share[:, None, None]
        kept = kept.expand_as(best)
        order = (best + tokens * ~kept).argsort(-1)
        index = best.gather(2, order)
        return Selection(index, kept.gather(2, order), self.scale_of(scores, index, x))


class TextRouter(Router):
    """Each text takes its best experts, which process all its tokens.

    Args:
        dim: features of the tokens.
        experts: to choose among.
        per_token: how many a text takes.
        scaled: whether outputs are scaled by the scores.
        tokens: of every text, where the gate reads one after the other; None for their mean.

    Source: Yang et al., 2025, arXiv 2503.02495 (UoME, expert selection).

    Example:
        >>> import torch
        >>> chosen = TextRouter(8, experts=4, per_token=2)(torch.randn(3, 6, 8))
        >>> chosen.experts.shape, chosen.index.shape
        (torch.Size([3, 2]), torch.Size([3, 2, 6]))
    """

    def __init__(
        self, dim: int, experts: int, per_token: int, scaled: bool = False,
        tokens: int | None = None,
    ):  # fmt: skip
        super().__init__(dim * (tokens or 1), experts, per_token, scaled)
        self.tokens = tokens

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Selection:
        """Chooses each text's experts.

        Raises:
            ValueError: the gate is for texts of another length.
        """
        batch, tokens = x.shape[:2]
        if self.tokens is not None and tokens != self.tokens:
            raise ValueError(f"the gate reads texts of {self.tokens} tokens, got {tokens}")
        here = x.new_ones(batch, tokens, dtype=torch.bool) if valid is None else valid
        x = x.masked_fill(~here[..., None], 0.0)
        read = x.flatten(1) if self.tokens else x.sum(1) / here.sum(1, keepdim=True).clamp(min=1)
        scores = self.scores(self.probabilities(read[:, None]))[:, 0]
        experts = top_positions(scores, self.per_token, ascending=True)
        size = (-1, self.per_token, tokens)
        scale = scores.gather(1, experts).to(x.dtype)[..., None].expand(size)
        index = torch.arange(tokens, device=x.device).expand(batch, *size[1:])
        kept = None if valid is None else valid[:, None].expand(size)
        return Selection(index, kept, scale if self.scaled else None, experts)


class OfficialRouter(Router):
    """The official choice: scores kept where a token ranks an expert high, divided over the batch.

    Args:
        dim: features of the tokens.
        experts: to choose among.
        per_token: how many experts keep a token's score.
        half: whether an expert takes half of the tokens, rather than as many as the busiest got.
    """

    def __init__(self, dim: int, experts: int, per_token: int, half: bool):
        super().__init__(dim, experts, per_token)
        self.takes_half = half

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Selection:
        """Chooses each expert's tokens."""
        scores = self.probabilities(x)
        kept = scores * self.taken(scores)
        if valid is not None:
            kept = kept.masked_fill(~valid[..., None], 0.0)
        scores = self.scores(kept / (kept.sum(0) + 1e-8) * x.shape[0])
        many = x.shape[1] // 2 if self.takes_half else int((kept > 0).sum(1).max())
        index = top_positions(scores.transpose(1, 2), max(many, 1), ascending=True)
        if valid is not None:  # padding may fill up what nobody wants
            valid = valid[:, None].expand(*index.shape[:2], -1).gather(2, index)
        return Selection(index, valid, None)
