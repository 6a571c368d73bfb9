"""Blocks of a vision transformer and the parts that can be exchanged in them."""

from typing import Protocol

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from core_attn import Dropout, MultiHeadAttention

from .tokens import TokenState


class Mixer(Protocol):
    """A module that mixes tokens; it sees their layout and returns their new features."""

    def __call__(self, state: TokenState) -> Tensor: ...  # noqa: D102


class SelfAttention(MultiHeadAttention):
    """Multi-head self attention over all tokens, as a mixer.

    Example:
        >>> import torch
        >>> state = TokenState(torch.randn(2, 10, 8), grid=(3, 3), prefix=1)
        >>> SelfAttention(8, heads=2)(state).shape
        torch.Size([2, 10, 8])
    """

    def forward(self, state: TokenState) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Attends among the tokens of each image."""
        return super().forward(state.tokens)

    def project(
        self, tokens: Float[Tensor, "batch tokens dim"]
    ) -> tuple[Float[Tensor, "batch heads tokens head_dim"], ...]:
        """Queries, keys and values, for variants that do more with them than attend."""
        q, k, v = rearrange(self.qkv(tokens), "b t (n h d) -> n b h t d", n=3, d=self.head_dim)
        return self.q_norm(q), self.k_norm(k), v


class Mlp(nn.Module):
    """Two linear maps with a GELU between them, on every token.

    Example:
        >>> import torch
        >>> Mlp(8, hidden=16)(TokenState(torch.randn(2, 9, 8), grid=(3, 3))).shape
        torch.Size([2, 9, 8])
    """

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.drop = Dropout(dropout)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, state: TokenState) -> Tensor:
        """Returns the new features."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(state.tokens)))))


class DropPath(nn.Module):
    """Leaves a residual branch out for a random part of the batch, in training.

    Args:
        rate: probability that a sample goes without it; the others' branches are scaled up.

    Source: Huang et al., 2016, "Deep Networks with Stochastic Depth", arXiv 1603.09382.

    Example:
        >>> DropPath(0.5).eval()(torch.ones(2, 3)).sum()
        tensor(6.)
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Returns `x`, or some of its samples scaled up and the others as zeros."""
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class LayerScale(nn.Module):
    """A learned factor per feature.

    Source: Touvron et al., 2021, "Going deeper with Image Transformers", arXiv 2103.17239, eq. (3).

    Example:
        >>> LayerScale(3, 0.1)(torch.ones(1, 3))
        tensor([[0.1000, 0.1000, 0.1000]], grad_fn=<MulBackward0>)
    """

    def __init__(self, dim: int, initial: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(initial)))

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """The scaled features."""
        return x * self.gamma


class Block(nn.Module):
    """Two pre-normed residual branches: x += mixer(norm1(x)); x += mlp(norm2(x)).

    Args:
        dim: features of a token.
        mixer: what mixes tokens.
        mlp: what acts on each token, with the same protocol.
        norm_eps: epsilon of the layer norms.
        layer_scale: initial per-feature scale of both branches; None for no scale.
        dropout: probability of dropping a feature that the mixer gives, in training.
        drop_path: probability of skipping a branch for a sample, in training.
    """

    def __init__(
        self,
        dim: int,
        mixer: nn.Module,
        mlp: nn.Module,
        *,
        norm_eps: float = 1e-6,
        layer_scale: float | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=norm_eps) for _ in range(2))
        self.attn, self.mlp, self.drop = mixer, mlp, Dropout(dropout)
        self.ls1, self.ls2 = (
            nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale) for _ in range(2)
        )
        self.drop_path1, self.drop_path2 = DropPath(drop_path), DropPath(drop_path)

    def mix(self, state: TokenState) -> TokenState:
        """Adds the first branch: tokens see each other."""
        return self.mixed(state, self.attn(state.with_tokens(self.norm1(state.tokens))))

    def mixed(self, state: TokenState, new: Tensor) -> TokenState:
        """Adds what the mixer gave."""
        change = self.ls1(self.drop(new))
        return state.with_tokens(state.tokens + self.drop_path1(change))

    def feed(self, state: TokenState) -> TokenState:
        """Adds the second branch: each token by itself."""
        change = self.ls2(self.mlp(state.with_tokens(self.norm2(state.tokens))))
        return state.with_tokens(state.tokens + self.drop_path2(change))

    def forward(self, state: TokenState) -> TokenState:
        """Updates the tokens; their layout stays."""
        return self.feed(self.mix(state))
