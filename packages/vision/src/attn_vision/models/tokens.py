"""What passes from block to block of a vision transformer."""

from dataclasses import dataclass, replace

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TokenState:
    """Tokens of a batch of images with their layout.

    Attributes:
        tokens: (batch, prefix + patches, dim), the prefix first.
        grid: rows and columns of the patches in raster order; None once patches were dropped.
        prefix: number of leading tokens that are no patches (class, distillation, registers).
        kept: once patches were dropped, which those left are, by their number on the grid; a token
            fused from others has a negative number.
    """

    tokens: Float[Tensor, "batch tokens dim"]
    grid: tuple[int, int] | None
    prefix: int = 0
    kept: Int[Tensor, "batch patches"] | None = None
    alive: Bool[Tensor, "batch patches"] | None = None

    def with_tokens(self, tokens: Float[Tensor, "batch tokens dim"]) -> "TokenState":
        """The same layout with other features."""
        return replace(self, tokens=tokens)

    @property
    def patches(self) -> Float[Tensor, "batch patches dim"]:
        """The tokens without their prefix."""
        return self.tokens[:, self.prefix :]

    @property
    def feature_map(self) -> Float[Tensor, "batch dim rows columns"]:
        """The patches laid out on their grid, channels first.

        Raises:
            ValueError: patches were dropped, so that no grid is left.
        """
        if self.grid is None:
            raise ValueError(f"{self.patches.shape[1]} patches are left of a grid: no feature map")
        return self.patches.transpose(1, 2).unflatten(2, self.grid)
