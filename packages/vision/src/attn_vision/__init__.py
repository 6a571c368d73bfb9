"""Vision transformers on core-attn."""

from .models import VARIANTS, VisionTransformer, VisionTransformerConfig, create

__all__ = ["VARIANTS", "VisionTransformer", "VisionTransformerConfig", "create"]
