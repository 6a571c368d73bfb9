"""From images to tokens."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .batch_norm import BatchNorm2d
from .tokens import TokenState


class PatchEmbed(nn.Module):
    """One token per square patch, by a convolution whose stride is its kernel.

    Args:
        channels: colors of the images.
        dim: features of a token.
        patch_size: side of a patch, in pixels.
        bias: whether the convolution has one.

    Raises:
        ValueError: in `forward`, the image's sides are not multiples of the patch, or its
            channels differ.

    Source: Dosovitskiy et al., 2021, "An Image is Worth 16x16 Words: Transformers for Image
    Recognition at Scale", arXiv 2010.11929, eq. (1).

    Example:
        >>> import torch
        >>> PatchEmbed(3, 8, patch_size=4)(torch.randn(1, 3, 12, 20)).grid
        (3, 5)
    """

    def __init__(self, channels: int, dim: int, patch_size: int, *, bias: bool = True):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch_size, patch_size, bias=bias)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> TokenState:
        """Cuts images into patches and embeds each."""
        patch, channels = self.proj.kernel_size[0], self.proj.in_channels
        if images.dim() != 4 or images.shape[1] != channels:
            raise ValueError(
                f"images must be (batch, {channels}, height, width), got {tuple(images.shape)}"
            )
        height, width = images.shape[2:]
        if height % patch or width % patch:
            raise ValueError(
                f"images of {height}x{width} pixels cannot be cut into patches of {patch}x{patch}"
            )
        tokens = self.proj(images).flatten(2).transpose(1, 2)
        return TokenState(tokens, (height // patch, width // patch))


class Affine(nn.Module):
    """A learned scale and offset per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Float[Tensor, "batch channels rows columns"]) -> Tensor:
        """The scaled map."""
        return x * self.alpha + self.beta


class SequentialOverlapEmbed(nn.Module):
    """SOPE: 3x3 convolutions of stride 2 with batch norms, between two affine maps.

    Args:
        channels: colors of the images.
        dim: features of a token.
        patch_size: 2, 4 or 16; as many convolutions as it has factors of 2.

    Raises:
        ValueError: another patch size, a width that does not divide; in `forward`, other channels.

    Source: Lu et al., 2022, "Bridging the Gap Between Vision Transformers and Convolutional Neural
    Networks on Small Datasets", arXiv 2210.05958, section 3.2.

    Example:
        >>> SequentialOverlapEmbed(3, 8, patch_size=4)(torch.randn(2, 3, 13, 20)).grid
        (4, 5)
    """

    def __init__(self, channels: int, dim: int, patch_size: int):
        super().__init__()
        parts = {16: (8, 4, 2, 1), 4: (2, 1), 2: (1,)}.get(patch_size)
        if parts is None:
            raise ValueError(f"SOPE supports patch sizes 2, 4, 16 (got {patch_size})")
        if dim % parts[0]:
            raise ValueError(f"dim {dim} must be a multiple of {parts[0]} for patches of 16 pixels")
        widths = (channels, *(dim // part for part in parts))
        self.pre_affine, self.post_affine = Affine(channels), Affine(dim)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            convolution = nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1, bias=False)
            layers += [nn.Sequential(convolution, BatchNorm2d(fan_out)), nn.GELU()]
        self.proj = nn.Sequential(*(layers if patch_size == 2 else layers[:-1]))

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> TokenState:
        """One token per patch; a patch that the image ends in counts."""
        channels = self.pre_affine.alpha.shape[1]
        if images.dim() != 4 or images.shape[1] != channels:
            raise ValueError(
                f"images must be (batch, {channels}, height, width), got {tuple(images.shape)}"
            )
        x = self.post_affine(self.proj(self.pre_affine(images)))
        return TokenState(x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3]))
