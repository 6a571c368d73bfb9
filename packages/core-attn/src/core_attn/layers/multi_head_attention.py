"""Multi-head attention over tokens, self or cross."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..ops._checks import check_dropout
from .attention_layer import AttentionLayer


class KeyValueCache:
    """Keys and values of the tokens already seen, for decoding step by step.

    Args:
        capacity: the most tokens it can hold; memory is taken at the first use.

    Raises:
        ValueError: `capacity` is below 1.

    Example:
        >>> import torch
        >>> layer, cache = MultiHeadAttention(8, heads=2).eval(), KeyValueCache(capacity=6)
        >>> x = torch.randn(1, 6, 8)
        >>> with torch.no_grad():
        ...     steps = [layer(token, causal=True, cache=cache) for token in x.split(1, dim=1)]
        ...     torch.cat(steps, 1).allclose(layer(x, causal=True), atol=1e-6)
        True
    """

    def __init__(self, capacity: int):
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.length = 0
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Appends (batch, heads, tokens, dim) and returns all keys and values so far.

        Raises:
            ValueError: the capacity is exceeded, or the tokens do not fit those before; then it is
                as it was.
        """
        stop = self.length + k.shape[-2]
        if stop > self.capacity:
            raise ValueError(f"cache of capacity {self.capacity} cannot hold {stop} tokens")
        for name, new, old in (("keys", k, self._k), ("values", v, self._v)):
            if old is not None and (*new.shape[:-2], new.shape[-1]) != (
                *old.shape[:-2], old.shape[-1],
            ):  # fmt: skip
                raise ValueError(
                    f"the cache holds {name} of shape {tuple(old.shape)}, which do not go with "
                    f"{tuple(new.shape)}"
                )
        if self._k is None or self._v is None:
            self._k = k.new_empty(*k.shape[:-2], self.capacity, k.shape[-1])
            self._v = v.new_empty(*v.shape[:-2], self.capacity, v.shape[-1])
        self._k[..., self.length : stop, :] = k
        self._v[..., self.length : stop, :] = v
        self.length = stop
        return self.contents()

    @contextmanager
    def kept_on_error(self) -> Iterator[None]:
        """Forgets tokens that were added inside if what was done with them failed."""
        length = self.length
        try:
            yield
        except BaseException:
            self.length = length
            raise

    def contents(self) -> tuple[Tensor, Tensor]:
        """All keys and values so far.

        Raises:
            ValueError: it is empty.
        """
        if self._k is None or self._v is None:
            raise ValueError("the cache is empty")
        return self._k[..., : self.length, :], self._v[..., : self.length, :]

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        """Keeps these rows of the batch only, in this order."""
        if self._k is not None and self._v is not None:
            k, v = self.contents()
            self._k = self._k.new_empty(len(rows), *self._k.shape[1:])
            self._v = self._v.new_empty(len(rows), *self._v.shape[1:])
            self._k[..., : self.length, :], self._v[..., : self.length, :] = k[rows], v[rows]


class MultiHeadAttention(AttentionLayer):
    """Multi-head attention with one projection for queries, keys and values.

    Args:
        dim: features of the tokens, in and out.
        heads: query heads.
        context_dim: features of the context in cross attention; None makes self attention.
        head_dim: features per head; dim / heads by default.
        kv_heads: key and value heads, each shared by heads / kv_heads query heads.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether each head's queries and keys pass a LayerNorm.
        norm_eps: its epsilon.
        dropout: probability of dropping a weight, in training.

    Raises:
        ValueError: a number is below 1, `dim` or `heads` do not divide as needed, or `dropout` is
            no probability below 1.

    Source: Vaswani et al., 2017, "Attention Is All You Need", arXiv 1706.03762, section 3.2.2.

    Example:
        >>> import torch
        >>> cross = MultiHeadAttention(16, heads=4, context_dim=12)
        >>> cross(torch.randn(2, 5, 16), torch.randn(2, 7, 12)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        context_dim: int | None = None,
        head_dim: int | None = None,
        kv_heads: int | None = None,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        norm_eps: float = 1e-6,
        dropout: float = 0.0,
    ):
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        counts = {"dim": dim, "heads": heads, "kv_heads": kv_heads}
        counts |= {"context_dim": context_dim, "head_dim": head_dim}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        if head_dim is None and dim % heads:
            raise ValueError(f"dim {dim} is not divisible by heads {heads}; give head_dim")
        if heads % kv_heads:
            raise ValueError(f"heads {heads} is not divisible by kv_heads {kv_heads}")
        self.num_heads, self.kv_heads = heads, kv_heads
        self.head_dim = head_dim or dim // heads
        self.dropout = check_dropout(dropout)
        q_dim, kv_dim = heads * self.head_dim, 2 * self.kv_heads * self.head_dim
        self.is_cross = context_dim is not None
        if context_dim is None:
            self.qkv = nn.Linear(dim, q_dim + kv_dim, bias=qkv_bias)
        else:
            self.q = nn.Linear(dim, q_dim, bias=qkv_bias)
            self.kv = nn.Linear(context_dim, kv_dim, bias=qkv_bias)
        self.q_norm = nn.LayerNorm(self.head_dim, norm_eps) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(self.head_dim, norm_eps) if qk_norm else nn.Identity()
        self.proj = nn.Linear(q_dim, dim)

    def forward(
        self,
        x: Float[Tensor, "batch queries dim"],
        context: Float[Tensor, "batch keys context_dim"] | None = None,
        *,
        mask: Bool[Tensor, "..."] | None = None,
        bias: Float[Tensor, "..."] | None = None,
        lengths: Int[Tensor, " batch"] | None = None,
        causal: bool = False,
        head_gate: Float[Tensor, "..."] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "batch queries dim"]:
        """Attends from `x` to `context`, or to `x` itself in self attention.

        Args:
            x: tokens that ask.
            context: tokens that answer; required in cross attention, refused in self attention.
            cache: in self attention, keys and values of earlier tokens, to which those of `x`
                are added; in cross attention, those of the context, projected at the first call
                and read from then on. Without gradients.

        The other arguments are those of `core_attn.attention`.

        Raises:
            ValueError: a context is missing or not expected, or as in `core_attn.attention`.
        """
        if self.is_cross != (context is not None):
            kind = "cross attention needs" if self.is_cross else "self attention takes no"
            raise ValueError(f"{kind} context; context_dim decides which of the two a layer is")
        if x.shape[-1] != self.proj.out_features:
            raise ValueError(
                f"x has {x.shape[-1]} features, the layer expects {self.proj.out_features}"
            )
        if cache is not None and torch.is_grad_enabled():
            raise ValueError("cache serves under torch.no_grad() only")
        if context is None:
            sizes = [self.num_heads, self.kv_heads, self.kv_heads]
            packed = rearrange(self.qkv(x), "b t (h d) -> b h t d", d=self.head_dim)
            q, k, v = packed.split(sizes, dim=1)
            q, k = self.q_norm(q), self.k_norm(k)
        else:
            q = self.q_norm(rearrange(self.q(x), "b t (h d) -> b h t d", d=self.head_dim))
            k, v = self._of_context(context, cache)
        with nullcontext() if cache is None else cache.kept_on_error():
            if cache is not None and context is None:
                k, v = cache.extend(k, v)
            heads = self.attend(
                q, k, v, mask=mask, bias=bias, lengths=lengths, causal=causal,
                dropout=self.dropout, head_gate=head_gate,
            )  # fmt: skip
        return self.proj(heads.flatten(-2))

    def _of_context(self, context: Tensor, cache: KeyValueCache | None) -> tuple[Tensor, Tensor]:
        if cache is not None and cache.length:
            return cache.contents()
        k, v = rearrange(self.kv(context), "b t (n h d) -> n b h t d", n=2, d=self.head_dim)
        k = self.k_norm(k)
        return (k, v) if cache is None else cache.extend(k, v)
