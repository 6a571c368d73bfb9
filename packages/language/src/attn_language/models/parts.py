"""Parts that several models share: rotary positions, feed-forwards, a growing cache."""

from collections.abc import Callable
from dataclasses import dataclass, field
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
    _latest: list[tuple] = field(default_factory=list, init=False, repr=False, compare=False)

    def turn(self, x: Float[Tensor, "*batch tokens dim"], start: int = 0) -> Tensor:
        """Vectors of tokens in a row rotated, the first one standing at `start`.

        What depends on positions alone is made once for all layers that share the wavelengths.

        Example:
            >>> import torch
            >>> x = torch.randn(2, 5, 4)
            >>> Rope().turn(x, 3).equal(rotate(x, torch.arange(3, 8)))
            True
        """
        tokens, dim = x.shape[-2:]
        if torch.compiler.is_compiling():
            return _turned(x, *self._turns(torch.arange(start, start + tokens), dim, x))
        key = (start, tokens, dim, x.dtype, x.device, torch.is_inference_mode_enabled())
        latest = self._latest[0] if self._latest else (None,)
        if latest[0] != key:
            latest = (key, *self._turns(torch.arange(start, start + tokens), dim, x))
            self._latest[:] = [latest]
        return _turned(x, *latest[1:])

    def _turns(self, positions: Tensor, dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of each feature itself and of its partner, (*positions, dim)."""
        angle = self.angles(positions.to(like.device), dim)
        cos, sin = angle.cos().to(like.dtype), angle.sin().to(like.dtype)
        return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)

    def angles(self, positions: Tensor, dim: int) -> Tensor:
        """By how much each pair of features is turned, (*positions, dim / 2)."""
        half = dim // 2
        index = torch.arange(half, dtype=torch.float32, device=positions.device)
        length = self.base ** (index / half)
        if self.factors is not None:
            length = length * torch.tensor(self.factors, device=positions.device)
        return positions[..., None].float() / length


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
    if not interleaved:
        return _turned(x, *rope._turns(positions, x.shape[-1], x))
    angle = rope.angles(positions, x.shape[-1])
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)


def _turned(x: Tensor, own: Tensor, partner: Tensor) -> Tensor:
    return torch.addcmul(x * own, x.roll(x.shape[-1] // 2, -1), partner)


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
