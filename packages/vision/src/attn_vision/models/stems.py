"""From images to tokens."""

from jaxtyping import Float
from torch import Tensor, nn

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
