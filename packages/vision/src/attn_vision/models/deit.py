"""DeiT: the plain vision transformer in three sizes, with and without a distillation token.

Source: Touvron et al., 2021, "Training data-efficient image transformers & distillation through
attention", arXiv 2012.12877, table 1.
"""

from .vision_transformer import VisionTransformerConfig

VARIANTS = {
    "deit_tiny": VisionTransformerConfig(dim=192, heads=3),
    "deit_small": VisionTransformerConfig(dim=384, heads=6),
    "deit_base": VisionTransformerConfig(dim=768, heads=12),
    "deit_tiny_distilled": VisionTransformerConfig(dim=192, heads=3, distilled=True),
    "deit_small_distilled": VisionTransformerConfig(dim=384, heads=6, distilled=True),
    "deit_base_distilled": VisionTransformerConfig(dim=768, heads=12, distilled=True),
}
