"""Attention whose heads act token by token."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ..ops import attention
from .attention_layer import AttentionLayer
from .head_gate import HeadGate, chosen_rows_attention

_FEW = 512  # tokens, below which bringing rows together costs more than it saves


class GatedHeads(AttentionLayer):
    """An attention layer with a `HeadGate` on the outputs of its heads.

    Args:
        gate: of the heads.
    """

    def __init__(self, gate: HeadGate):
        super().__init__()
        self.gate = gate

    def attend_gated(
        self,
        q: Float[Tensor, "batch heads tokens dim"],
        k: Float[Tensor, "batch heads keys dim"],
        v: Float[Tensor, "batch heads keys v_dim"],
        gates: Float[Tensor, "batch tokens heads"],
        *,
        bias: Float[Tensor, "heads tokens keys"] | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> Float[Tensor, "batch tokens heads v_dim"]:
        """Attends, each head times its gate; rows of routed heads that no gate needs are skipped.

        Nothing is skipped while training, compiling or exporting, while something listens to the
        pattern, where there are few tokens or where most heads act.

        Args:
            q: queries.
            k: keys.
            v: values.
            gates: what the gate returned for the queries' tokens.
            bias: added to the scores.
            scale: factor on the scores; 1/sqrt(dim) by default.
            dropout: probability of dropping a weight, in training.
        """
        if not self._skips(q.shape[-2]):
            return self.attend(
                q, k, v, bias=bias, scale=scale, dropout=dropout, head_gate=gates.to(q.dtype)
            )
        sizes = [self.gate.shared, self.gate.choices]
        (q0, q1), (k0, k1), (v0, v1) = (x.split(sizes, 1) for x in (q, k, v))
        bias0, bias1 = (None, None) if bias is None else bias.split(sizes, -3)
        chosen = gates[..., self.gate.shared :] > 0
        parts = [chosen_rows_attention(q1, k1, v1, chosen, bias=bias1, scale=scale)]
        if self.gate.shared:
            parts.insert(0, attention(q0, k0, v0, bias=bias0, scale=scale))
        heads = torch.cat(parts, 1).transpose(1, 2)
        return self.heads(heads * gates[..., None].to(heads.dtype))

    def _skips(self, tokens: int) -> bool:
        idle = self.gate.choices - self.gate.routed
        return not (
            self.training
            or self.pattern.listening
            or torch.compiler.is_compiling()
            or tokens < _FEW
            or 8 * idle < self.gate.choices + self.gate.shared
        )


class MixtureOfHeadAttention(GatedHeads):
    """Multi-head self attention with a gate per token and head.

    Args:
        dim: features of a token.
        heads: attention heads.
        shared: the first heads, which always act.
        routed: how many of the others act for a token.
        head_dim: features per head; dim / heads by default.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether each head's queries and keys pass a LayerNorm.
        balance_weight: factor of the loss that keeps routed heads in balance.
        dropout: probability of dropping a weight, in training.

    Raises:
        ValueError: the numbers of heads do not fit.

    Source: Jin et al., 2024, "MoH: Multi-Head Attention as Mixture-of-Head Attention", arXiv
    2410.11842, eq. (4).

    Example:
        >>> layer = MixtureOfHeadAttention(16, heads=4, shared=2, routed=1)
        >>> layer(torch.randn(2, 5, 16)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        shared: int,
        routed: int,
        *,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        balance_weight: float = 0.01,
        dropout: float = 0.0,
    ):
        super().__init__(HeadGate(dim, heads, shared, routed, balance_weight=balance_weight))
        if head_dim is None and (heads < 1 or dim % heads):
            raise ValueError(f"dim {dim} is not divisible by heads {heads}; give head_dim")
        self.num_heads, self.head_dim = heads, head_dim or dim // heads
        self.dropout = dropout
        inner = heads * self.head_dim
        self.qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias)
        self.q_norm = nn.LayerNorm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(self.head_dim) if qk_norm else nn.Identity()
        self.proj = nn.Linear(inner, dim)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Attends among the tokens."""
        q, k, v = rearrange(self.qkv(x), "b t (n h d) -> n b h t d", n=3, d=self.head_dim)
        heads = self.attend_gated(
            self.q_norm(q), self.k_norm(k), v, self.gate(x), dropout=self.dropout
        )
        return self.proj(heads.flatten(2))
