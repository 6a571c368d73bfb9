"""BAM: mixtures whose experts are the attentions and feed-forwards of several dense models."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import AttentionLayer, AuxiliaryLoss, Tap, mean_over_processes, top_positions

from .parts import Rope, split_heads
from .transformer import Cache, TransformerConfig, extended


@dataclass(frozen=True, kw_only=True)
class BAMConfig(TransformerConfig):
    """Shape of a mixture; the dense models that it is made of share its other settings.

    Attributes:
        experts: dense models mixed.
        kv: whether every attention expert has its own keys and values ("expert"), or all share
            theirs ("shared"), or there is one attention and no router ("single", which is BTX).
        top_k: feed-forward experts of a token.
        balance: weight of the load balancing loss.
        router_z: weight of the router's z loss.

    Source: Zhang et al., 2024, "BAM! Just Like That", arXiv 2408.08274; Sukhbaatar et al., 2024,
        "Branch-Train-MiX", arXiv 2403.07816.
    """

    positions: Literal["learned", "rotary", "none"] = "rotary"
    norm: Literal["layer", "scale", "rms"] = "scale"
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "silu"
    gated: bool = True
    block: Literal["pre", "post", "parallel"] = "parallel"
    qkv_bias: bool = False
    out_bias: bool = False
    bias: bool = False
    experts: int = 4
    kv: Literal["expert", "shared", "single"] = "expert"
    top_k: int = 1
    balance: float = 1e-2
    router_z: float = 1e-3

    def __post_init__(self):
        """Refuses sizes that cannot be built."""
        super().__post_init__()
        if not self.gated or self.bias or self.qkv_bias or self.out_bias:
            raise ValueError("a mixture's feed-forward must be gated, and nothing have biases")
        if not self.causal:
            raise ValueError("a mixture's attention is causal")
        if self.kv not in ("expert", "shared", "single"):
            raise ValueError(f"kv must be 'expert', 'shared' or 'single', got {self.kv!r}")
        if not 1 <= self.top_k <= self.experts:
            raise ValueError(f"top_k must be in [1, {self.experts}], got {self.top_k}")

    def make_mixer(self, index: int) -> nn.Module:
        """Attention experts, or the single attention."""
        if self.kv == "single":
            return super().make_mixer(index)
        return AttentionExperts(
            self.dim, self.heads, self.kv_heads or self.heads, self.features_per_head,
            self.experts, shared_kv=self.kv == "shared", dropout=self.dropout,
            rope=self.rope,
        )  # fmt: skip

    def make_feed_forward(self) -> nn.Module:
        """Feed-forward experts."""
        return FeedForwardExperts(
            self.dim, self.hidden or 4 * self.dim, self.experts, self.top_k, self.balance,
            self.router_z,
        )  # fmt: skip


class AttentionExperts(AttentionLayer):
    """Several causal attentions on the same tokens, summed with weights of a soft router.

    Args:
        dim: features of the tokens.
        heads: query heads of an expert.
        kv_heads: its key and value heads.
        head_dim: features of a head.
        experts: attentions.
        shared_kv: whether they share keys and values.
        rope: the wavelengths of rotary positions; None for no such positions.
        dropout: probability of dropping a weight, in training.

    Source: Zhang et al., 2024, arXiv 2408.08274, section 3.1.

    Example:
        >>> import torch
        >>> layer = AttentionExperts(16, heads=2, kv_heads=1, head_dim=8, experts=3)
        >>> y, cache = layer(torch.randn(1, 5, 16))
        >>> y.shape, cache.k.x.shape
        (torch.Size([1, 5, 16]), torch.Size([1, 3, 5, 8]))
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        experts: int,
        *,
        shared_kv: bool = False,
        rope: Rope | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.num_heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.experts, self.shared_kv = experts, shared_kv
        self.rope, self.dropout = rope, dropout
        stored = kv_heads if shared_kv else experts * kv_heads
        self.sizes = [experts * heads, stored, stored]
        self.head_map = [
            (0 if shared_kv else expert * kv_heads) + head * kv_heads // heads
            for expert in range(experts)
            for head in range(heads)
        ]
        self.qkv = nn.Linear(dim, sum(self.sizes) * head_dim, bias=False)
        self.router = nn.Linear(dim, experts, bias=False)
        self.out = nn.Linear(experts * heads * head_dim, dim, bias=False)
        self.routing = Tap()

    def forward(self, x: Tensor, state: Cache | None = None, valid: Tensor | None = None):
        """The attended tokens (batch, tokens, dim), and the cache with their keys and values."""
        q, k, v = split_heads(self.qkv(x), self.head_dim).split(self.sizes, 1)
        if self.rope is not None:
            start = 0 if state is None else state.k.x.shape[-2]
            q, k = (self.rope.turn(z, start) for z in (q, k))
        cache = extended(state, k, v)
        shares = self.routing(F.linear(x.float(), self.router.weight.float()).softmax(-1))
        heads = self.attend(
            q, cache.k.x, cache.v.x, causal=True, dropout=self.dropout,
            k_head_map=self.head_map, v_head_map=self.head_map,
            head_gate=shares.repeat_interleave(self.num_heads, -1).to(x.dtype),
        )  # fmt: skip
        return self.out(heads.flatten(-2)), cache


class FeedForwardExperts(nn.Module):
    """Gated feed-forwards of which each token takes its likeliest, times the router's probability.

    Args:
        dim: features of the tokens.
        hidden: features inside an expert.
        experts: feed-forwards.
        top_k: how many a token takes.
        balance: weight of the load balancing loss, experts * sum_i share_i * probability_i.
        router_z: weight of the mean squared logsumexp of the router's logits.

    Source: Zhang et al., 2024, arXiv 2408.08274, sections 2 and 3.

    Example:
        >>> import torch
        >>> FeedForwardExperts(8, 16, experts=3)(torch.randn(2, 5, 8))[0].shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        experts: int,
        top_k: int = 1,
        balance: float = 1e-2,
        router_z: float = 1e-3,
    ):
        super().__init__()
        self.experts, self.top_k = experts, top_k
        self.router = nn.Linear(dim, experts, bias=False)
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * hidden, dim))
        self.down = nn.Parameter(torch.empty(experts, dim, hidden))
        for weight in (self.gate_up, self.down):
            nn.init.normal_(weight, std=0.02)
        self.balance, self.router_z = AuxiliaryLoss(balance), AuxiliaryLoss(router_z)
        self.routing = Tap()

    def forward(self, x: Tensor, state: None = None, valid: Tensor | None = None):
        """The new features, and no state; padding does not enter the losses."""
        logits = F.linear(x.float(), self.router.weight.float())
        probabilities = self.routing(logits.softmax(-1))
        chosen = top_positions(probabilities, self.top_k)
        taken = F.one_hot(chosen, self.experts).sum(-2)
        self._leave_losses(logits, probabilities, taken, valid)
        shares = (probabilities * taken).to(x.dtype)
        flat, shares, taken = x.flatten(0, 1), shares.flatten(0, 1), taken.flatten(0, 1)
        y = torch.zeros_like(flat)
        for expert in range(self.experts):
            if torch.compiler.is_compiling():  # no shape may depend on values
                y = y + shares[:, expert, None] * self.one(flat, expert)
                continue
            rows = taken[:, expert].nonzero()[:, 0]
            if len(rows):
                share = shares[rows, expert, None]
                # Products of 16 rows, 32, ...: how many others there are then rounds no row.
                missing = -len(rows) % 16
                share, rows = F.pad(share, (0, 0, 0, missing)), F.pad(rows, (0, missing))
                y = y.index_add(0, rows, share * self.one(flat[rows], expert))
        return y.view_as(x), None

    def one(self, x: Float[Tensor, "tokens dim"], expert: int) -> Float[Tensor, "tokens dim"]:
        """One expert's output on every token."""
        gate, up = F.linear(x, self.gate_up[expert]).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.down[expert])

    def _leave_losses(
        self, logits: Tensor, probabilities: Tensor, taken: Tensor, valid: Tensor | None
    ) -> None:
        self.balance(balance_loss(probabilities, taken, valid, everywhere=self.training))
        self.router_z(_mean(logits.logsumexp(-1).square(), valid))


def balance_loss(
    probabilities: Float[Tensor, "batch tokens experts"],
    taken: Tensor,
    valid: Bool[Tensor, "batch tokens"] | None = None,
    *,
    everywhere: bool = False,
) -> Float[Tensor, ""]:
    """experts * sum of (share of tokens that take it) * (its mean probability).

    1 where all are alike, `experts` where one takes all. The shares are those of all processes if
    it is called `everywhere`.

    Source: Fedus et al., 2021, "Switch Transformers", arXiv 2101.03961, eqs. (4)-(6).

    Example:
        >>> import torch
        >>> p = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
        >>> balance_loss(p, p).item()
        2.0
    """
    share = _mean(taken.to(probabilities.dtype), valid) / taken.sum(-1).max().clamp(min=1)
    share = mean_over_processes(share) if everywhere else share
    return probabilities.shape[-1] * (share * _mean(probabilities, valid)).sum()


def _mean(x: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over batch and tokens, padding left out."""
    if valid is None:
        return x.mean((0, 1))
    mask = valid if x.dim() == 2 else valid[..., None]
    return x.masked_fill(~mask, 0.0).sum((0, 1)) / valid.sum().clamp(min=1)
