"""Parts that several models share: rotary positions, feed-forwards, a growing cache."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


@dataclass(frozen=True)
class Rope:
    """The wavelengths of rotary positions, 2 pi base^(2i/dim) times factor i.

    Args:
        base: of the powers.
        factors: by which each wavelength is stretched, one per pair of features; None for 1.
    """

    base: float = 10000.0
    factors: tuple[float, ...] | None = None


PLAIN = Rope()


def rotate(
    x: Float[Tensor, "*batch tokens dim"],
    positions: Float[Tensor, "*batch tokens"] | Tensor,
    rope: Rope = PLAIN,
    *,
    interleaved: bool = False,
) -> Float[Tensor, "*batch tokens dim"]:
    """Rotary positions: each pair of features turned by position * base^(-2i/dim) / factor i.

    Args:
        x: vectors of an even number of features.
        positions: of the tokens, broadcastable to x without its last axis.
        rope: the wavelengths.
        interleaved: pairs are neighbors (0,1), (2,3), ...; otherwise i and i + dim/2.

    Source: Su et al., 2021, "RoFormer", arXiv 2104.09864, eq. (34).

    Example:
        >>> import torch
        >>> x = torch.randn(2, 5, 4)
        >>> rotate(x, torch.zeros(5)).equal(x)
        True
    """
    half = x.shape[-1] // 2
    index = torch.arange(half, dtype=torch.float32, device=x.device)
    length = rope.base ** (index / half)
    if rope.factors is not None:
        length = length * torch.tensor(rope.factors, device=x.device)
    angle = positions[..., None].float() / length
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def split_heads(x: Float[Tensor, "batch tokens features"], dim: int) -> Tensor:
    """(batch, tokens, heads * dim) -> (batch, heads, tokens, dim)."""
    return rearrange(x, "b t (h d) -> b h t d", d=dim)


class Growing:
    """Tensors that grow along their tokens' axis, as a value: extending one leaves it as it was.

    Successive extensions share one buffer with room to spare, so that decoding does not copy what
    it keeps; a second extension of the same value, or one with gradients, takes its own.

    Args:
        x: (*batch, tokens, features), the content.

    Example:
        >>> import torch
        >>> a = Growing(torch.zeros(1, 3, 2))
        >>> b, c = a.extend(torch.ones(1, 1, 2)), a.extend(torch.full((1, 2, 2), 7.0))
        >>> a.x.shape[1], b.x[0, -1].tolist(), c.x.shape[1]
        (3, [1.0, 1.0], 5)
    """

    def __init__(self, x: Tensor, buffer: "list[Tensor | int] | None" = None):
        self.x = x
        self._buffer = buffer  # [storage, tokens written]

    def extend(self, new: Tensor) -> "Growing":
        """The content followed by (*batch, tokens, features) more."""
        have, stop = self.x.shape[-2], self.x.shape[-2] + new.shape[-2]
        if torch.is_grad_enabled() and (new.requires_grad or self.x.requires_grad):
            return Growing(torch.cat((self.x, new), -2))
        buffer = self._buffer
        if buffer is None or buffer[1] != have or buffer[0].shape[-2] < stop:  # pyright: ignore
            room = self.x.new_empty(*self.x.shape[:-2], stop + stop // 2 + 16, self.x.shape[-1])
            room[..., :have, :] = self.x
            buffer = [room, have]
        storage: Tensor = buffer[0]  # pyright: ignore[reportAssignmentType]
        storage[..., have:stop, :] = new
        buffer[1] = stop
        return Growing(storage[..., :stop, :], buffer)


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, on every token.

    Example:
        >>> import torch
        >>> FeedForward(8, 32)(torch.randn(2, 3, 8))[0].shape
        torch.Size([2, 3, 8])
    """

    def __init__(self, dim: int, hidden: int, activation: Activation = "gelu", bias: bool = True):
        super().__init__()
        self.up = nn.Linear(dim, hidden, bias=bias)
        self.down = nn.Linear(hidden, dim, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor, state: None = None, valid: Tensor | None = None):
        """The new features, and no state."""
        return self.down(ACTIVATIONS[self.activation](self.up(x))), None


class GatedFeedForward(nn.Module):
    """down(activation(gate x) * up x), on every token.

    Source: Shazeer, 2020, "GLU Variants Improve Transformer", arXiv 2002.05202, eq. (6).

    Example:
        >>> import torch
        >>> GatedFeedForward(8, 32)(torch.randn(2, 3, 8))[0].shape
        torch.Size([2, 3, 8])
    """

    def __init__(self, dim: int, hidden: int, activation: Activation = "silu", bias: bool = False):
        super().__init__()
        self.gate_up = nn.Linear(dim, 2 * hidden, bias=bias)
        self.down = nn.Linear(hidden, dim, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor, state: None = None, valid: Tensor | None = None):
        """The new features, and no state."""
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(ACTIVATIONS[self.activation](gate) * up), None
