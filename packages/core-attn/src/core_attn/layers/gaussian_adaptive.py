"""Gaussian adaptive attention: elements weighted by how near they are to a shifted mean."""

import math
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..taps import Tap
from .attention_layer import AttentionLayer


class GaussianGate(nn.Module):
    """Weights stacked encoder layers, feature by feature, by a Gaussian around their mean.

    Each head sees tokens / heads of the layers. With z its part, n = (z - mean - offset) / std over
    those layers, the gate is a = exp(-n² / (2 spread)) and the result z a. There is no sum to one.
    The tap `gate` sees a (batch, tokens, dim).

    Args:
        dim: features.
        tokens: layers of the encoder; divisible by `heads`.
        heads: parts of the token axis, each with parameters of its own.
        positive_spread: whether the spread passes a softplus, so that it cannot cross 0 in
            training; the official code lets it.

    Raises:
        ValueError: `tokens` is not divisible by `heads`.

    Source: Ioannides et al., 2024, "Density Adaptive Attention", arXiv 2401.11143, algorithm 1;
    the exponent has 2 spread as there and in the experiments' code, not 2 spread² as in the text.

    Example:
        >>> gate = GaussianGate(dim=5, tokens=6, heads=3)
        >>> gate(torch.randn(2, 6, 5)).shape
        torch.Size([2, 6, 5])
    """

    def __init__(self, dim: int, tokens: int, heads: int = 8, *, positive_spread: bool = False):
        super().__init__()
        if heads < 1 or tokens % heads:
            raise ValueError(f"tokens {tokens} is not divisible by heads {heads}")
        self.tokens, self.num_heads, self.positive_spread = tokens, heads, positive_spread
        self.offset = nn.Parameter(torch.zeros(heads, dim))
        start = math.log(math.expm1(2.0)) if positive_spread else 2.0
        self.spread = nn.Parameter(torch.full((heads, dim), start))
        self.gate = Tap()

    def forward(
        self, x: Float[Tensor, "batch tokens *time dim"]
    ) -> Float[Tensor, "batch tokens *time dim"]:
        """Weights `x`; with a time axis, one gate of the mean over time acts on every frame.

        Raises:
            ValueError: `x` has another number of tokens.
        """
        if x.shape[1] != self.tokens:
            raise ValueError(f"x has {x.shape[1]} tokens, the gate expects {self.tokens}")
        pooled = _wide(x).mean(2) if x.dim() == 4 else _wide(x)
        z = pooled.unflatten(1, (self.num_heads, -1))
        mean = z.mean(2, keepdim=True)
        variance = (z.square().mean(2, keepdim=True) - mean.square()).abs() + 1e-8
        n = (z - mean - self.offset[:, None]) / (variance + 1e-5).sqrt()
        gate = (-n.square() / (2 * self._spread()[:, None])).exp().flatten(1, 2)
        gate = self.gate(gate.to(x.dtype))
        return x * (gate[:, :, None] if x.dim() == 4 else gate)

    def _spread(self) -> Tensor:
        if self.positive_spread:
            return nn.functional.softplus(self.spread)
        if self.training and bool((self.spread.detach() <= 0).any()):
            warnings.warn(
                "a spread of GaussianGate is 0 or below, where the gate explodes; "
                "positive_spread=True prevents it",
                stacklevel=3,
            )
        return self.spread


class GaussianAdaptiveAttention(nn.Module):
    """Weights the elements along one axis by a product of Gaussians around their mean.

    The weights sum to one along each head's part of the axis. A product of Gaussians is again one
    Gaussian: several of them add parameters, not modes. Densities are multiplied as logarithms,
    so nothing underflows. The tap `gate` sees the weights, in the shape of the input.

    Args:
        axis: along which the mean is taken and the weights sum to one.
        heads: parts of that axis; the last takes the remainder.
        gaussians: factors of the product.
        padding_value: elements equal to it are returned unchanged and count as zeros in the mean.
        eps: added to the variance.
        least: the smallest normalizer; sums of densities below it give weights that sum to less
            than one, as in the official library. 0 gives a proper distribution always.

    Raises:
        ValueError: a count is below 1, or the padding value is NaN, which equals nothing.

    Source: Ioannides et al., 2024, arXiv 2401.11143, section 3; as in the library
    gaussian-adaptive-attention, whose exponent has 2 spread².

    Example:
        >>> layer = GaussianAdaptiveAttention(axis=1, heads=2, gaussians=3)
        >>> layer(torch.randn(2, 7, 4)).shape
        torch.Size([2, 7, 4])
    """

    def __init__(
        self,
        axis: int = -1,
        heads: int = 1,
        gaussians: int = 1,
        *,
        padding_value: float | None = None,
        eps: float = 1e-8,
        least: float = 1e-8,
    ):
        super().__init__()
        if heads < 1 or gaussians < 1:
            raise ValueError(f"heads {heads} and gaussians {gaussians} must be at least 1")
        if padding_value is not None and math.isnan(padding_value):
            raise ValueError("padding_value NaN equals no element; mark padding by a number")
        self.axis, self.num_heads, self.padding_value = axis, heads, padding_value
        self.eps, self.least = eps, least
        self.offset = nn.Parameter(torch.zeros(heads, gaussians))
        self.spread = nn.Parameter(torch.randn(heads, gaussians).exp())
        self.gate = Tap()

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Weights `x` along the axis.

        Raises:
            ValueError: there is no such axis, or a head would see fewer than 2 elements, whose
                variance is undefined.
        """
        if not -x.dim() <= self.axis < x.dim():
            raise ValueError(f"axis {self.axis} is none of the {x.dim()} axes of x")
        size = x.shape[self.axis] // self.num_heads
        if size < 2:
            raise ValueError(
                f"each head needs at least 2 elements along axis {self.axis}: "
                f"{x.shape[self.axis]} for {self.num_heads} heads"
            )
        sizes = [size] * (self.num_heads - 1)
        sizes.append(x.shape[self.axis] - sum(sizes))
        parts = x.split(sizes, self.axis)
        weights = torch.cat(
            [
                self._weights(part, offset, spread)
                for part, offset, spread in zip(parts, self.offset, self.spread, strict=True)
            ],
            self.axis,
        )
        y = x * self.gate(weights.to(x.dtype))
        return y if self.padding_value is None else torch.where(x == self.padding_value, x, y)

    def _weights(self, x: Tensor, offsets: Tensor, spreads: Tensor) -> Tensor:
        x = _wide(x)
        shown = x if self.padding_value is None else x.masked_fill(x == self.padding_value, 0.0)
        mean = shown.mean(self.axis, keepdim=True)
        std = (shown.var(self.axis, keepdim=True) + self.eps).sqrt()
        n = (x[..., None] - mean[..., None] - offsets) / std[..., None]
        log_density = -n.square() / (2 * spreads.square()) - spreads.abs().log()
        log_product = (log_density - math.log(2 * math.pi) / 2).sum(-1)
        normalizer = log_product.logsumexp(self.axis, keepdim=True)
        least = math.log(self.least) if self.least > 0 else -math.inf
        return (log_product - normalizer.clamp(min=least)).exp()


class GaussianAdaptiveBlock(nn.Module):
    """Layers of `GaussianAdaptiveAttention`, each added to what it got.

    Args:
        axes: of each layer.
        heads: likewise.
        gaussians: likewise.
        padding_value: as of the layers.
        eps: likewise.
        least: likewise.

    Raises:
        ValueError: the lists differ in length, or are empty.

    Source: Ioannides et al., 2024, arXiv 2401.11143; `GaussianBlock` of the library
    gaussian-adaptive-attention.

    Example:
        >>> block = GaussianAdaptiveBlock(axes=[1, -1], heads=[2, 1], gaussians=[3, 1])
        >>> block(torch.randn(2, 7, 4)).shape
        torch.Size([2, 7, 4])
    """

    def __init__(
        self,
        axes: Sequence[int],
        heads: Sequence[int],
        gaussians: Sequence[int],
        *,
        padding_value: float | None = None,
        eps: float = 1e-8,
        least: float = 1e-8,
    ):
        super().__init__()
        if not len(axes) == len(heads) == len(gaussians) > 0:
            raise ValueError(
                f"axes, heads and gaussians must be as many, at least one: got {len(axes)}, "
                f"{len(heads)} and {len(gaussians)}"
            )
        options = {"padding_value": padding_value, "eps": eps, "least": least}
        self.layers = nn.ModuleList(
            GaussianAdaptiveAttention(*sizes, **options)
            for sizes in zip(axes, heads, gaussians, strict=True)
        )

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Weights `x` along each axis in turn."""
        for layer in self.layers:
            x = x + layer(x)
        return x


class SummedGroupAttention(AttentionLayer):
    """Attention in which the queries of a group are summed, so that it has `kv_heads` patterns.

    It is not the usual grouped-query attention: there each query head keeps a pattern of its own.
    Logits are divided by head_dim, not by its square root; the heads' outputs pass a LayerNorm.

    Args:
        dim: features, in and out.
        heads: query heads.
        kv_heads: groups of query heads; as many patterns.

    Raises:
        ValueError: the counts do not divide, or the head width is above 128 or no multiple of 8.

    Source: Ioannides et al., 2024, arXiv 2401.11143, GQ-DAAM; as in the experiments' code.

    Example:
        >>> layer = SummedGroupAttention(32, heads=4, kv_heads=2)
        >>> layer(torch.randn(2, 5, 32)).shape
        torch.Size([2, 5, 32])
    """

    def __init__(self, dim: int, heads: int = 8, kv_heads: int = 2):
        super().__init__()
        if heads < 1 or kv_heads < 1 or dim % heads or heads % kv_heads:
            raise ValueError(
                f"dim {dim} must be divisible by heads {heads}, and heads by kv_heads {kv_heads}"
            )
        head_dim = dim // heads
        if head_dim % 8 or head_dim > 128:
            raise ValueError(f"dim / heads = {head_dim} must be a multiple of 8, at most 128")
        self.num_heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, kv_heads * head_dim)
        self.v = nn.Linear(dim, kv_heads * head_dim)
        self.norm = nn.LayerNorm(kv_heads * head_dim)
        self.proj = nn.Linear(kv_heads * head_dim, dim)
        for linear in (self.q, self.k, self.v, self.proj):
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Attends among the tokens of `x`."""
        q, k, v = (
            linear(x).unflatten(-1, (self.kv_heads, -1, self.head_dim)).sum(-2).transpose(1, 2)
            for linear in (self.q, self.k, self.v)
        )
        heads = self.attend(q, k, v, scale=1 / self.head_dim)
        return self.proj(self.norm(heads.flatten(-2)))


def importance_factor(gate: Float[Tensor, "*map"]) -> Float[Tensor, "*map"]:
    """A gate's mean over a data set, scaled to 0 ... 1; zeros where it is the same everywhere.

    Source: Ioannides et al., 2024, arXiv 2401.11143, eq. (11).

    Example:
        >>> importance_factor(torch.tensor([2.0, 3.0, 4.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    low, high = gate.min(), gate.max()
    return torch.zeros_like(gate) if high == low else (gate - low) / (high - low)


def _wide(x: Tensor) -> Tensor:
    """In single precision at least: variances of half precision are of no use."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
