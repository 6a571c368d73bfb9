"""MSA-Conv: attention with the interface of a convolution.

The products and sums over windows and `MSAConvLayer` are the authors' (their code). Heads, masked
padding, shifts and pooled windows are this package's reading of the paper's abstract.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import AttentionLayer
from core_attn.ops._neighborhood_attention.call import Axis, places

Kernel = int | tuple[int, int]


def window_products(
    q: Float[Tensor, "batch dim rows columns"],
    k: Float[Tensor, "batch dim rows columns"],
    kernel: Kernel,
    dilation: int = 1,
) -> Float[Tensor, "batch slots rows columns"]:
    """Products of each position's query with the keys in the window around it, 0 outside the map.

    Args:
        q: queries.
        k: keys.
        kernel: rows and columns of the window, odd; its slots are in raster order.
        dilation: step between them.

    Raises:
        ValueError: a size is even.

    Source: Zhang et al., 2023, "TiC: Exploring Vision Transformer in Convolution", arXiv
    2310.04134.

    Example:
        >>> import torch
        >>> q = torch.ones(1, 2, 3, 3)
        >>> window_products(q, q, 3)[0, :, 0, 0]
        tensor([0., 0., 0., 0., 2., 2., 0., 2., 2.])
    """
    sizes = odd_kernel(kernel)
    return torch.stack([(q * x).sum(1) for x in _shifts(k, sizes, dilation)], 1)


def window_sums(
    weights: Float[Tensor, "batch slots rows columns"],
    v: Float[Tensor, "batch dim rows columns"],
    kernel: Kernel,
    dilation: int = 1,
) -> Float[Tensor, "batch dim rows columns"]:
    """Sums of the values in the window around each position, weighted by slot.

    Arguments and source as in `window_products`.

    Raises:
        ValueError: a size is even.

    Example:
        >>> import torch
        >>> window_sums(torch.ones(1, 9, 3, 3), torch.ones(1, 1, 3, 3), 3)[0, 0, 0]
        tensor([4., 6., 4.])
    """
    shifts = _shifts(v, odd_kernel(kernel), dilation)
    return sum(
        (a[:, None] * x for a, x in zip(weights.unbind(1), shifts, strict=True)),
        torch.zeros_like(v),
    )


def odd_kernel(kernel: Kernel) -> tuple[int, int]:
    """Rows and columns of a window.

    Raises:
        ValueError: one is even or less than 1.
    """
    sizes = (kernel, kernel) if isinstance(kernel, int) else (kernel[0], kernel[1])
    if any(size < 1 or size % 2 == 0 for size in sizes):
        raise ValueError(f"MSA-Conv needs odd kernel sizes, got {kernel}")
    return sizes


def _shifts(x: Tensor, kernel: tuple[int, int], dilation: int) -> list[Tensor]:
    """The map as seen from every slot of the window."""
    rows, columns = x.shape[2:]
    down, right = (dilation * (size // 2) for size in kernel)
    padded = F.pad(x, (right, right, down, down))
    return [
        padded[:, :, dilation * i : dilation * i + rows, dilation * j : dilation * j + columns]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


class MSAConv2d(AttentionLayer):
    """Attention of each position over the window around it, on maps of any size.

    With one head it is the authors' operator between a 1x1 convolution and the residual of
    `MSAConvLayer`; `heads` equal to `dim` makes each channel its own head ("depth-wise").

    Args:
        dim: channels, in and out.
        heads: attention heads; head i owns the i-th part of the channels.
        kernel: rows and columns of the window, odd.
        dilation: step between positions of the window.
        mask_padding: whether positions outside the map are left out of the softmax; else they
            take part with a logit and a value of 0, as the authors have it.
        shift: how far keys and values of groups of heads are rolled, up, down, left and right,
            one group staying; 0 for none. Experimental: this package's reading of MDCS.
        inter_pool: whether the windows also hold the positions of a map pooled to half its size,
            in the same softmax, padding masked. Experimental: this package's reading.
        dropout: probability of dropping a weight, in training.

    Raises:
        ValueError: sizes that do not fit.

    Source: Zhang et al., 2023, "TiC: Exploring Vision Transformer in Convolution", arXiv
    2310.04134.

    Example:
        >>> import torch
        >>> MSAConv2d(8, heads=2, kernel=3)(torch.randn(2, 8, 5, 7)).shape
        torch.Size([2, 8, 5, 7])
    """

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        kernel: Kernel = 3,
        dilation: int = 1,
        *,
        mask_padding: bool = False,
        shift: int = 0,
        inter_pool: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"dim {dim} is not divisible by heads {heads}")
        if dilation < 1 or shift < 0:
            raise ValueError(f"dilation must be at least 1, shift 0; got {dilation} and {shift}")
        self.num_heads, self.kernel, self.dilation = heads, odd_kernel(kernel), dilation
        self.mask_padding, self.shift = mask_padding, shift
        self.inter_pool, self.dropout = inter_pool, dropout
        self.qkv = nn.Linear(dim, 3 * dim)

    def forward(
        self, x: Float[Tensor, "batch dim rows columns"]
    ) -> Float[Tensor, "batch dim rows columns"]:
        """The windowed attention of the map."""
        grid = (x.shape[2], x.shape[3])
        qkv = self.qkv(x.flatten(2).transpose(1, 2))
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1)
        )
        if self.shift:
            k, v = (multi_directional_shift(part, grid, self.shift) for part in (k, v))
        if self.inter_pool:
            k, v = (torch.cat([part, _pooled(part, grid)], 2) for part in (k, v))
            index = self._index(grid, x.device).expand(*q.shape[:3], -1)
            heads = self.attend_gathered(q, k, v, index, dropout=self.dropout)
        else:
            heads = self.attend_neighborhood(
                q, k, v, grid, halo=(self.kernel[0] // 2, self.kernel[1] // 2),
                dilation=self.dilation, mask_padding=self.mask_padding, dropout=self.dropout,
            )  # fmt: skip
        return heads.flatten(2).transpose(1, 2).unflatten(2, grid)

    def _index(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """For each position the window around it, then that around its place on the pooled map."""
        coarse = (-(-grid[0] // 2), -(-grid[1] // 2))
        fine, pooled = (
            places(tuple(Axis(n, 1, k // 2, step, 1) for n, k in zip(g, self.kernel, strict=True)),
                   device)[1]
            for g, step in ((grid, self.dilation), (coarse, 1))
        )  # fmt: skip
        row, column = (torch.arange(n, device=device) // 2 for n in grid)
        pooled = pooled[(row[:, None] * coarse[1] + column).flatten()]
        pooled = torch.where(pooled < 0, -1, pooled + grid[0] * grid[1])
        return torch.cat([fine, pooled], -1)


class MSAConvLayer(nn.Module):
    """The authors' demonstration layer: relu(conv(x + attention(x))), one head.

    Args:
        dim: channels in.
        out_dim: channels out.
        kernel: of the window and of the convolution, odd.
        stride: of the convolution.
        dilation: of the window.
        padding: of the convolution.
        bias: of the convolution.
        dropout: probability of dropping a weight, in training.

    Source: Zhang et al., 2023, "TiC: Exploring Vision Transformer in Convolution", arXiv
    2310.04134.

    Example:
        >>> import torch
        >>> MSAConvLayer(6, 8, 3, stride=2)(torch.randn(2, 6, 7, 7)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        kernel: Kernel,
        stride: int = 1,
        *,
        dilation: int = 1,
        padding: int = 1,
        bias: bool = False,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.attention = MSAConv2d(dim, 1, kernel, dilation, dropout=dropout)
        self.conv = nn.Conv2d(dim, out_dim, kernel, stride, padding, bias=bias)

    def forward(
        self, x: Float[Tensor, "batch dim rows columns"]
    ) -> Float[Tensor, "batch out_dim out_rows out_columns"]:
        """The new map."""
        return F.relu(self.conv(x + self.attention(x)))


def multi_directional_shift(
    x: Float[Tensor, "batch heads tokens dim"], grid: tuple[int, int], distance: int
) -> Float[Tensor, "batch heads tokens dim"]:
    """Rolls the map of all but the first of five groups of heads: up, down, left, right.

    Applied to keys and values it lets a query see the window `distance` positions away.
    Experimental: the authors' rule is unknown, this is the package's reading.

    Example:
        >>> import torch
        >>> x = torch.arange(6.0).expand(1, 5, 6)[..., None]
        >>> multi_directional_shift(x, (2, 3), 1)[0, 3].flatten()
        tensor([1., 2., 0., 4., 5., 3.])
    """
    still, up, down, left, right = x.unflatten(2, grid).tensor_split(5, 1)
    groups = [
        still, up.roll(-distance, 2), down.roll(distance, 2), left.roll(-distance, 3),
        right.roll(distance, 3),
    ]  # fmt: skip
    return torch.cat(groups, 1).flatten(2, 3)


def _pooled(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Heads' maps (batch, heads, tokens, dim) averaged two by two."""
    maps = x.flatten(0, 1).transpose(1, 2).unflatten(2, grid)
    coarse = F.avg_pool2d(maps, 2, ceil_mode=True, count_include_pad=False)
    return coarse.flatten(2).transpose(1, 2).unflatten(0, x.shape[:2])
