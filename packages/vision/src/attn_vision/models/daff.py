"""DAFF: a convolutional feed-forward that rescales the class token."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .batch_norm import BatchNorm2d
from .tokens import TokenState


class DynamicAggregationFeedForward(nn.Module):
    """Patches pass 1x1, depth-wise and 1x1 convolutions; their mean scales the class token.

    Args:
        dim: features of a token.
        hidden: features between the convolutions.
        kernel_size: side of the depth-wise kernel, odd.

    Raises:
        ValueError: an even kernel, fewer than 4 features; in `forward`, tokens that are no whole
            grid, or in training a single value per channel.

    Source: Lu et al., 2022, "Bridging the Gap Between Vision Transformers and Convolutional Neural
    Networks on Small Datasets", arXiv 2210.05958, section 3.3.

    Example:
        >>> state = TokenState(torch.randn(2, 13, 8), grid=(3, 4), prefix=1)
        >>> DynamicAggregationFeedForward(8, hidden=16)(state).shape
        torch.Size([2, 13, 8])
    """

    def __init__(self, dim: int, hidden: int, kernel_size: int = 3):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        if dim < 4:
            raise ValueError(f"dim must be at least 4, got {dim}: a quarter of it is compressed to")
        self.conv1 = nn.Conv2d(dim, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, kernel_size, padding=kernel_size // 2, groups=hidden)
        self.conv3 = nn.Conv2d(hidden, dim, 1)
        self.bn1, self.bn2 = BatchNorm2d(hidden), BatchNorm2d(hidden)
        self.bn3 = BatchNorm2d(dim)
        self.compress = nn.Linear(dim, dim // 4)
        self.excitation = nn.Linear(dim // 4, dim)

    def forward(self, state: TokenState) -> Float[Tensor, "batch tokens dim"]:
        """The new features."""
        if state.grid is None:
            raise ValueError(
                f"DAFF needs the patch grid; {state.patches.shape[1]} patches have none"
            )
        x = state.feature_map
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            raise ValueError("DAFF normalizes over batch and patches: train on more than one patch")
        u = F.gelu(_normed(self.conv1, self.bn1, x))
        v = u + F.gelu(_normed(self.conv2, self.bn2, u))
        w = _normed(self.conv3, self.bn3, v)
        scale = self.excitation(F.gelu(self.compress(w.mean((2, 3)))))
        prefix = state.tokens[:, : state.prefix] * scale[:, None]
        return torch.cat([prefix, w.flatten(2).transpose(1, 2)], 1)


def _normed(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """norm(conv(x)); with fixed statistics one convolution, of weights that the norm scales."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return norm(conv(x))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        bias = bias + conv.bias * scale
    return F.conv2d(x, weight, bias, padding=conv.padding, groups=conv.groups)  # pyright: ignore[reportArgumentType]
