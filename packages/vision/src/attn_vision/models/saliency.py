"""A heat map of what draws the eye, from the patch features of a vision transformer."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .vision_transformer import VisionTransformer, VisionTransformerConfig


class SaliencyDecoder(nn.Module):
    """Three up-convolutions and a 1x1 convolution, from patch features to one map.

    Args:
        dim: features of a patch.
        widths: channels after each up-convolution, which doubles the resolution.

    Example:
        >>> import torch
        >>> SaliencyDecoder(8, widths=(4, 4, 2))(torch.randn(1, 8, 3, 5)).shape
        torch.Size([1, 1, 24, 40])
    """

    def __init__(self, dim: int, widths: tuple[int, int, int] = (256, 128, 64)):
        super().__init__()
        ins = (dim, *widths[:2])
        self.upconv1, self.upconv2, self.upconv3 = (
            nn.ConvTranspose2d(i, o, kernel_size=4, stride=2, padding=1)
            for i, o in zip(ins, widths, strict=True)
        )
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(width) for width in widths)
        self.final_conv = nn.Conv2d(widths[-1], 1, kernel_size=1)

    def forward(
        self, features: Float[Tensor, "batch dim rows columns"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """Unbounded scores at 8 times the resolution."""
        x = F.relu(self.bn1(self.upconv1(features)))
        x = F.relu(self.bn2(self.upconv2(x)))
        x = F.relu(self.bn3(self.upconv3(x)))
        return self.final_conv(x)


class SaliencyNet(nn.Module):
    """A vision transformer without classes under a `SaliencyDecoder`.

    Args:
        config: of the backbone; `classes` must be 0.

    Raises:
        ValueError: the configuration has classes.

    Example:
        >>> import torch
        >>> config = VisionTransformerConfig(image_size=16, patch_size=4, dim=8, depth=1, heads=2,
        ...                                  classes=0)
        >>> SaliencyNet(config)(torch.randn(1, 3, 16, 24)).shape
        torch.Size([1, 1, 16, 24])
    """

    def __init__(self, config: VisionTransformerConfig):
        super().__init__()
        if config.classes:
            raise ValueError(f"classes must be 0 for a backbone, got {config.classes}")
        self.backbone = VisionTransformer(config)
        self.decoder = SaliencyDecoder(config.dim)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """The probability, per pixel, that it draws the eye."""
        scores = self.decoder(self.backbone.features(images).feature_map)
        resized = F.interpolate(scores, images.shape[2:], mode="bilinear", align_corners=False)
        return resized.sigmoid()
