"""The spectral gate: a learned filter in Fourier space mixes the tokens of a grid."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .tokens import TokenState

MATRICES = ("down", "along", "up", "back")


class SpectralGate(nn.Module):
    """irfft2(rfft2(x) * weight) over the grid of tokens, per channel: a circular convolution.

    Of the columns for horizontal frequency 0 and, on grids of even width, for the highest one only
    the Hermitian part counts; elsewhere than on a CPU, whose transforms take no more of it, it is
    taken before the product, so that all devices agree. Computed in float32 under autocast, by
    FFTs, in compiled and exported models by products with real matrices.

    Args:
        dim: features of a token.
        grid: rows and columns of the tokens.

    Raises:
        ValueError: in `forward`, another grid.

    Source: Patro et al., 2023, "SpectFormer: Frequency and Attention is what you need in a Vision
    Transformer", arXiv 2304.06446, section 3.1; Rao et al., 2021, "Global Filter Networks for Image
    Classification", arXiv 2107.00645, eqs. (5) to (7).

    Example:
        >>> import torch
        >>> SpectralGate(8, (3, 5))(TokenState(torch.randn(2, 15, 8), (3, 5))).shape
        torch.Size([2, 15, 8])
    """

    def __init__(self, dim: int, grid: tuple[int, int]):
        super().__init__()
        self.grid = grid
        self.complex_weight = nn.Parameter(torch.empty(grid[0], grid[1] // 2 + 1, dim, 2))
        for name, matrix in zip(MATRICES, transforms(grid), strict=True):
            self.register_buffer(name, matrix.float(), persistent=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Draws a filter of standard deviation 0.02."""
        nn.init.normal_(self.complex_weight, std=0.02)

    def forward(self, state: TokenState) -> Float[Tensor, "batch tokens dim"]:
        """The filtered tokens."""
        if state.grid != self.grid or state.prefix:
            got = "none" if state.grid is None else "x".join(map(str, state.grid))
            raise ValueError(
                f"the spectral gate was built for {self.grid[0]}x{self.grid[1]} tokens, got {got}; "
                "interpolate the weights with resize_spectral()"
            )
        with torch.autocast(state.tokens.device.type, enabled=False):
            wide = torch.promote_types(state.tokens.dtype, torch.float32)
            x = state.tokens.to(wide).unflatten(1, self.grid)
            weight, compiling = self.complex_weight.to(wide), torch.compiler.is_compiling()
            if compiling or x.device.type != "cpu":
                weight = hermitian(weight, self.grid[1])
            if compiling:
                y = filter_by_products(x, weight, self.matrices(wide))
            else:
                y = filter_by_fft(x, weight)
        return y.flatten(1, 2).to(state.tokens.dtype)

    def matrices(self, dtype: torch.dtype) -> list[Float[Tensor, "_out _in"]]:
        """Those of `transforms`."""
        if dtype == torch.float64:  # what is kept has half of its digits
            return [m.to(self.complex_weight.device) for m in transforms(self.grid)]
        return [self.get_buffer(name).to(dtype) for name in MATRICES]

    def kernel(self) -> Float[Tensor, "rows columns dim"]:
        """The circular convolution that the gate is, by displacement of the source."""
        weight = torch.view_as_complex(hermitian(self.complex_weight, self.grid[1]))
        return torch.fft.irfft2(weight, s=self.grid, dim=(0, 1))


def hermitian(
    weight: Float[Tensor, "rows half dim 2"], columns: int
) -> Float[Tensor, "rows half dim 2"]:
    """The weight with its self-conjugate columns made so: w[u] = conj(w[-u]) there.

    Example:
        >>> import torch
        >>> w = hermitian(torch.randn(4, 3, 1, 2), columns=4)
        >>> w[0, 0, 0, 1].item(), w[1, 2, 0, 1].item() == -w[3, 2, 0, 1].item()
        (0.0, True)
    """
    own = weight[:, : 1 if columns % 2 or columns < 2 else None : max(weight.shape[1] - 1, 1)]
    mirrored = torch.cat([own[:1], own[1:].flip(0)])
    both = (own + torch.stack([mirrored[..., 0], -mirrored[..., 1]], -1)) / 2
    if both.shape[1] == 1:
        return torch.cat([both, weight[:, 1:]], 1)
    return torch.cat([both[:, :1], weight[:, 1:-1], both[:, 1:]], 1)


def filter_by_fft(
    x: Float[Tensor, "batch rows columns dim"], weight: Float[Tensor, "rows half dim 2"]
) -> Float[Tensor, "batch rows columns dim"]:
    """The gate by Fourier transforms in O(N log N), axis by axis.

    The last transform takes the real part of the self-conjugate columns: of the weight, the
    Hermitian part. One axis at a time spares the copy that a transform of two axes makes.
    """
    if not x.numel():  # MKL takes no empty batch
        return x
    spectrum = torch.fft.fft(torch.fft.rfft(x, dim=2), dim=1)
    factor = torch.view_as_complex(weight.contiguous())
    if torch.is_grad_enabled():
        spectrum = spectrum * factor
    else:
        spectrum *= factor
    return torch.fft.irfft(torch.fft.ifft(spectrum, dim=1), n=x.shape[2], dim=2)


def filter_by_products(
    x: Float[Tensor, "batch rows columns dim"],
    weight: Float[Tensor, "rows half dim 2"],
    matrices: Sequence[Float[Tensor, "_out _in"]],
) -> Float[Tensor, "batch rows columns dim"]:
    """The gate by products with the matrices of the transforms, in real numbers."""
    batch, rows, columns, dim = x.shape
    half = columns // 2 + 1
    down, along, up, back = matrices
    y = down @ x.flatten(2)  # (batch, rows and parts, columns * dim)
    y = along @ y.reshape(batch * rows, 2 * columns, dim)
    real, imaginary = y.view(batch, rows, 2, half, dim).unbind(2)
    a, b = weight.unbind(-1)
    y = torch.stack([real * a - imaginary * b, real * b + imaginary * a], 2)
    y = up @ y.view(batch, 2 * rows, half * dim)
    return (back @ y.view(batch * rows, 2 * half, dim)).view(x.shape)


def transforms(grid: tuple[int, int]) -> list[Float[Tensor, "_out _in"]]:
    """Matrices of the transforms along rows, along columns, back along rows, back along columns.

    Real and imaginary parts alternate along the rows and follow each other along the columns.

    Example:
        >>> [tuple(m.shape) for m in transforms((6, 8))]
        [(12, 6), (10, 16), (12, 12), (8, 10)]
    """
    rows, columns = grid
    half = columns // 2 + 1
    (c, s), (cosine, sine) = _waves(rows, rows), _waves(half, columns)
    down = torch.stack([c, -s], 1).flatten(0, 1)
    along = torch.cat([torch.cat([cosine, sine], 1), torch.cat([-sine, cosine], 1)])
    up = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], 1)
    up = up.flatten(2).flatten(0, 1)
    times = torch.full((half, 1), 2.0, dtype=torch.float64)  # a frequency and its conjugate
    times[0] = 1.0
    if columns % 2 == 0:
        times[-1] = 1.0
    back = torch.cat([times * cosine, -times * sine]).T
    root = (rows * columns) ** -0.5
    return [root * down, along, root * up, back]


def _waves(frequencies: int, size: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every frequency at every position, in float64."""
    u, x = (torch.arange(n, dtype=torch.int64) for n in (frequencies, size))
    angle = 2 * math.pi / size * (u[:, None] * x % size).double()
    return angle.cos(), angle.sin()


def resize_spectral(
    weight: Float[Tensor, "rows half dim 2"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "new_rows new_half dim 2"]:
    """A gate's weight for another grid, bicubic over its frequencies with the corners aligned.

    Args:
        weight: of the old grid.
        old: its rows and columns.
        new: rows and columns wanted.

    Raises:
        ValueError: the weight does not belong to the old grid.

    Example:
        >>> import torch
        >>> resize_spectral(torch.randn(14, 8, 6, 2), (14, 14), (24, 16)).shape
        torch.Size([24, 9, 6, 2])
    """
    if weight.shape[:2] != (old[0], old[1] // 2 + 1):
        raise ValueError(
            f"a weight of {weight.shape[0]}x{weight.shape[1]} frequencies is not one of a grid of "
            f"{old[0]}x{old[1]} tokens, which has {old[0]}x{old[1] // 2 + 1}"
        )
    if old == new:
        return weight
    image = weight.flatten(2).permute(2, 0, 1)[None].float()
    size = (new[0], new[1] // 2 + 1)
    image = F.interpolate(image, size, mode="bicubic", align_corners=True)
    return image[0].permute(1, 2, 0).unflatten(2, weight.shape[2:]).to(weight.dtype)
