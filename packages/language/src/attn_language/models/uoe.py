"""Union of Experts: heads and slices of a feed-forward, each for the tokens routed to it."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import AttentionLayer, scatter_sum

from .decoder import DecoderConfig, PostNormBlock
from .parts import Growing, rotate
from .routers import (
    ExpertRouter,
    OfficialRouter,
    Router,
    Selection,
    TextRouter,
    TokenRouter,
)

Routing = Literal["token", "expert", "official"]


@dataclass(frozen=True, kw_only=True)
class UoEConfig(DecoderConfig):
    """Shape of a Union of Experts model.

    Attributes:
        heads: attention heads, each an expert.
        heads_per_token: experts of attention that a token takes; half of the heads by default.
        experts: slices of the feed-forward.
        experts_per_token: slices that a token takes.
        hidden: features inside the feed-forward, over all slices; 4 dim by default.
        routing: "token": each token takes its best experts, and attends to earlier ones of the
            same head; exactly causal. "expert": each expert takes the tokens of the sample that
            score best with it. "official": the same with scores divided by their sum over the
            batch, so that a text's result depends on its batch, and a gate that is never trained.
        per_text: chooses the slices of the feed-forward once for all tokens of a text, which looks
            ahead: by a gate on their mean ("pooled"), or, as in the official code, on all of them
            one after the other, whose number it fixes to `context` ("flattened").
        gate_scale: whether an expert's output is scaled by the gate, which trains it; never with
            "official".
        causal: whether an expert's tokens see earlier ones only, by rank among them.
        norm: whether a LayerNorm follows each sum ("post"), or nothing does ("none").

    Source: Yang et al., 2025, "Union of Experts", arXiv 2503.02495.
    """

    heads: int = 4
    heads_per_token: int | None = None
    experts: int = 4
    experts_per_token: int = 2
    hidden: int | None = None
    routing: Routing = "token"
    per_text: Literal["pooled", "flattened"] | None = None
    gate_scale: bool = True
    causal: bool = True
    norm: Literal["post", "none"] = "post"

    def __post_init__(self):
        """Refuses sizes that cannot be built."""
        super().__post_init__()
        if self.dim % self.heads:
            raise ValueError(f"hidden size {self.dim} is not divisible by {self.heads} heads")
        if self.dim // self.heads % 2:
            raise ValueError(f"rotary needs an even head_dim, got {self.dim // self.heads}")
        if self.features % self.experts:
            raise ValueError(f"hidden {self.features} is not divisible by {self.experts} experts")
        for name, value, most in (
            ("heads_per_token", self.heads_per_token or 1, self.heads),
            ("experts_per_token", self.experts_per_token, self.experts),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"{name} must be in [1, {most}], got {value}")
        if self.routing not in ("token", "expert", "official"):
            raise ValueError(
                f"routing must be 'token', 'expert' or 'official', got {self.routing!r}"
            )

    @property
    def features(self) -> int:
        """The features inside the feed-forward, over all slices."""
        return self.hidden or 4 * self.dim

    @property
    def exact_steps(self) -> bool:
        """Where experts choose, later tokens change what earlier ones get."""
        return self.routing == "token" and self.causal and self.per_text is None

    def make_router(self, experts: int, per_token: int, half: bool) -> "Router":
        """The router of a layer."""
        if self.routing == "official":
            return OfficialRouter(self.dim, experts, per_token, half)
        kind = TokenRouter if self.routing == "token" else ExpertRouter
        return kind(self.dim, experts, per_token, self.gate_scale)

    def make_block(self, index: int) -> nn.Module:
        """Selective attention and union of feed-forwards."""
        per_token = self.heads_per_token or max(self.heads // 2, 1)
        attention = SelectiveAttention(
            self.dim, self.heads, self.make_router(self.heads, per_token, False),
            causal=self.causal, dropout=self.dropout,
        )  # fmt: skip
        if self.per_text is None:
            router = self.make_router(self.experts, self.experts_per_token, True)
        else:
            router = TextRouter(
                self.dim, self.experts, self.experts_per_token, self.gate_scale,
                tokens=self.context if self.per_text == "flattened" else None,
            )  # fmt: skip
        feed_forward = UnionFeedForward(self.dim, self.features, self.experts, router)
        norms = [nn.LayerNorm(self.dim) if self.norm == "post" else nn.Identity() for _ in range(2)]
        return PostNormBlock(norms[0], attention, norms[1], feed_forward, self.dropout)

    def make_final_norm(self) -> nn.Module:
        """None where the last block ends in one."""
        return nn.Identity() if self.norm == "post" else nn.LayerNorm(self.dim)

    def initialize(self, model) -> None:
        """Matrices xavier normal per expert, biases zero."""
        super().initialize(model)
        for module in model.modules():
            if isinstance(module, ExpertLinear):
                for weight in module.weight.data:
                    nn.init.xavier_normal_(weight)
                nn.init.zeros_(module.bias)


class ExpertLinear(nn.Module):
    """One linear map per expert, (batch, experts, chosen, features) to the same.

    Example:
        >>> import torch
        >>> ExpertLinear(3, 8, 5)(torch.randn(2, 3, 4, 8)).shape
        torch.Size([2, 3, 4, 5])
    """

    def __init__(self, experts: int, features: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, features, out))
        self.bias = nn.Parameter(torch.zeros(experts, out))
        for weight in self.weight.data:
            nn.init.xavier_normal_(weight)

    def forward(
        self,
        x: Float[Tensor, "batch experts chosen features"],
        experts: Int[Tensor, "batch experts"] | None = None,
    ) -> Tensor:
        """The mapped tokens, of the experts given, of all by default."""
        if experts is None:
            return x @ self.weight + self.bias[:, None]
        return x @ self.weight[experts] + self.bias[experts][:, :, None]


def gather_tokens(
    x: Float[Tensor, "batch tokens dim"], index: Int[Tensor, "batch experts chosen"]
) -> Float[Tensor, "batch experts chosen dim"]:
    """The tokens at the positions of each expert."""
    first = x.shape[1] * torch.arange(x.shape[0], device=x.device)
    rows = index + first[:, None, None]
    return x.flatten(0, 1).index_select(0, rows.flatten()).view(*index.shape, x.shape[-1])


def summed(
    y: Float[Tensor, "batch experts chosen dim"], selection: Selection, tokens: int
) -> Float[Tensor, "batch tokens dim"]:
    """Adds what the experts made of their tokens at the tokens' positions."""
    if selection.scale is not None:
        y = y * selection.scale[..., None]
    if selection.valid is not None:
        y = y.masked_fill(~selection.valid[..., None], 0.0)
    return scatter_sum(y, selection.index, tokens)


class SelectiveState(NamedTuple):
    """What the attention keeps: the inputs of a first pass, or keys, values, whose they are."""

    inputs: Tensor | None
    k: Growing | None = None
    v: Growing | None = None
    taken: Tensor | None = None


class SelectiveAttention(AttentionLayer):
    """Heads as experts: each attends among the tokens routed to it, rotary by rank among them.

    Args:
        dim: features of the tokens.
        heads: attention heads.
        router: chooses their tokens.
        causal: whether a token sees earlier ones only.
        dropout: probability of dropping a weight, in training.

    Source: Yang et al., 2025, arXiv 2503.02495 (SMHA).

    Example:
        >>> import torch
        >>> layer = SelectiveAttention(8, 2, TokenRouter(8, experts=2, per_token=1))
        >>> layer(torch.randn(1, 5, 8))[0].shape
        torch.Size([1, 5, 8])
    """

    def __init__(
        self, dim: int, heads: int, router: Router, *, causal: bool = True, dropout: float = 0.0
    ):
        super().__init__()
        self.num_heads, self.head_dim = heads, dim // heads
        self.router, self.causal, self.dropout = router, causal, dropout
        self.q = ExpertLinear(heads, dim, self.head_dim)
        self.kv = ExpertLinear(heads, dim, 2 * self.head_dim)
        self.out = ExpertLinear(heads, self.head_dim, dim)

    def forward(
        self, x: Tensor, state: SelectiveState | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, SelectiveState]:
        """The sum of the heads' outputs (batch, tokens, dim), and the state."""
        if state is not None:
            return self._step(x, state)
        selection = self.router(x, valid)
        chosen = gather_tokens(x, selection.index)
        rank = torch.arange(chosen.shape[2], device=x.device)
        q = rotate(self.q(chosen), rank)
        k, v = self.kv(chosen).chunk(2, -1)
        mask = None if selection.valid is None else selection.valid[:, :, None]
        heads = self.attend(
            q, rotate(k, rank), v, mask=mask, causal=self.causal, dropout=self.dropout
        )
        y = self.out(heads.transpose(1, 2))
        return summed(y, selection, x.shape[1]), SelectiveState(x)

    def _step(self, x: Tensor, state: SelectiveState) -> tuple[Tensor, SelectiveState]:
        """More tokens after those of `state`: all heads at once, masked where they were not taken.

        Only for a router whose choice is each token's own.
        """
        if state.inputs is not None:
            k, v, _, taken, _ = self._projected(state.inputs, None)
            state = SelectiveState(None, Growing(k), Growing(v), taken)
        assert state.k is not None and state.v is not None and state.taken is not None
        k, v, q, own, scale = self._projected(x, state.taken)
        taken = torch.cat((state.taken, own), -1)
        state = SelectiveState(None, state.k.extend(k), state.v.extend(v), taken)
        assert state.k is not None and state.v is not None
        mask = own[..., None] & taken[:, :, None]
        heads = self.attend(q, state.k.x, state.v.x, mask=mask, causal=True)
        y = self.out(heads.transpose(1, 2)).masked_fill(~own[..., None], 0.0)
        return (y if scale is None else y * scale[..., None]).sum(1), state

    def _projected(self, x: Tensor, before: Tensor | None):
        """Keys, values, queries of every head for every token; whether taken; scale."""
        scores = self.router.probabilities(x)
        own = self.router.taken(scores).transpose(1, 2)
        rank = own.cumsum(-1) - 1
        if before is not None:
            rank = rank + before.sum(-1, keepdim=True)
        everywhere = x[:, None].expand(-1, self.num_heads, -1, -1)
        k, v = self.kv(everywhere).chunk(2, -1)
        scale = scores.transpose(1, 2).to(x.dtype) if self.router.scaled else None
        return rotate(k, rank), v, rotate(self.q(everywhere), rank), own, scale


class UnionFeedForward(nn.Module):
    """Slices of a feed-forward as experts: each processes the tokens routed to it.

    Args:
        dim: features of the tokens.
        hidden: features inside, over all slices.
        experts: slices.
        router: chooses their tokens.

    Source: Yang et al., 2025, arXiv 2503.02495 (UoME, data selection).

    Example:
        >>> import torch
        >>> layer = UnionFeedForward(8, 32, 4, ExpertRouter(8, experts=4, per_token=2))
        >>> layer(torch.randn(1, 6, 8))[0].shape
        torch.Size([1, 6, 8])
    """

    def __init__(self, dim: int, hidden: int, experts: int, router: Router):
        super().__init__()
        self.router = router
        self.up = ExpertLinear(experts, dim, hidden // experts)
        self.down = ExpertLinear(experts, hidden // experts, dim)

    def forward(self, x: Tensor, state: None = None, valid: Tensor | None = None):
        """The sum of the experts' outputs (batch, tokens, dim), and no state."""
        selection = self.router(x, valid)
        experts = selection.experts
        y = self.down(F.gelu(self.up(gather_tokens(x, selection.index), experts)), experts)
        return summed(y, selection, x.shape[1]), None
