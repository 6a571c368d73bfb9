"""Attention of a language model that was converted to act with a part of its heads."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from core_attn import AttentionLayer, query_norm_gate


class MoHLlamaAttention(AttentionLayer):
    """LLaMA's attention with heads chosen by the length of their queries, kept or left out.

    Args:
        dim: features of a token.
        heads: query heads.
        kv_heads: key and value heads.
        shared: the first heads, which always act; half of them by default.
        routed: how many of the others act for a token; a quarter of all heads by default.
        rope_theta: base of the rotary positions.

    Raises:
        ValueError: the numbers of heads do not fit.

    Source: Jin et al., 2024, "MoH: Multi-Head Attention as Mixture-of-Head Attention", arXiv
    2410.11842, section 3.4.

    Example:
        >>> layer = MoHLlamaAttention(32, heads=8, kv_heads=2)
        >>> layer(torch.randn(1, 5, 32)).shape
        torch.Size([1, 5, 32])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int,
        *,
        shared: int | None = None,
        routed: int | None = None,
        rope_theta: float = 500_000.0,
    ):
        super().__init__()
        if heads < 1 or kv_heads < 1 or dim % heads or heads % kv_heads:
            raise ValueError(f"heads {heads} must divide dim {dim}, and kv_heads {kv_heads} heads")
        self.shared = heads // 2 if shared is None else shared
        self.routed = heads // 4 if routed is None else routed
        if self.shared < 0 or not 0 < self.routed <= heads - self.shared:
            raise ValueError(
                f"routed={self.routed} but only {heads - self.shared} routed heads exist"
            )
        self.num_heads, self.head_dim, self.rope_theta = heads, dim // heads, rope_theta
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj, self.v_proj = (
            nn.Linear(dim, kv_heads * self.head_dim, bias=False) for _ in range(2)
        )
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], *, causal: bool = True
    ) -> Float[Tensor, "batch tokens dim"]:
        """Attends among the tokens, each to those before it where causal."""
        q, k, v = (
            rearrange(layer(x), "b t (h d) -> b h t d", d=self.head_dim)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        gate = query_norm_gate(q, self.shared, self.routed).to(q.dtype)
        heads = self.attend(self._rotated(q), self._rotated(k), v, causal=causal, head_gate=gate)
        return self.o_proj(heads.flatten(2))

    def _rotated(self, x: Tensor) -> Tensor:
        half = self.head_dim // 2
        place = torch.arange(half, dtype=torch.float32, device=x.device)
        time = torch.arange(x.shape[-2], dtype=torch.float32, device=x.device)
        angle = time[:, None] * self.rope_theta ** -(place / half)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
