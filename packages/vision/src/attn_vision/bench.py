"""DeiT here beside timm's, with the same weights, on the CPU."""

import timm
import torch
from torch import Tensor, nn

from core_attn import why
from core_attn.testing.timing import geometric_mean, medians, processor, table

from .models import VisionTransformer, VisionTransformerConfig
from .official import vit

SHAPES = {
    "DeiT-Ti, 224 px": (4, VisionTransformerConfig()),
    "DeiT-S, 224 px": (2, VisionTransformerConfig(dim=384, heads=6)),
    "DeiT-Ti, 32 px, patch 4": (32, VisionTransformerConfig(32, patch_size=4)),
    "DeiT-Ti, 8 px, patch 2": (64, VisionTransformerConfig(8, patch_size=2)),
}
HEADER = ("model", "batch", "backend", "ours ms", "timm ms", "inference", "ours ms", "timm ms",
          "training")  # fmt: skip


def infer(model: nn.Module, images: Tensor) -> None:
    """One batch without gradients."""
    with torch.inference_mode():
        model(images)


def train(model: nn.Module, images: Tensor) -> None:
    """One batch forward and backward."""
    model(images).square().mean().backward()


def bench(threads: int, seconds: float) -> None:
    """Prints the table; ratios are timm's time over ours."""
    torch.set_num_threads(threads)
    rows, ratios = [], []
    for name, (batch, config) in SHAPES.items():
        ours = VisionTransformer(config)
        theirs = timm.models.VisionTransformer(
            config.image_sides[0], config.patch_size, embed_dim=config.dim, depth=config.depth,
            num_heads=config.heads,
        )  # fmt: skip
        ours.load_state_dict(vit.from_official(theirs.state_dict(), config))
        images = torch.randn(batch, 3, *config.image_sides)
        row = [name, str(batch), why(ours, images)[0].backend]
        for run in (infer, train):
            mine, timms = medians(
                [lambda m=m, run=run, x=images: run(m, x) for m in (ours, theirs)], seconds
            )
            row += [f"{1e3 * mine:.0f}", f"{1e3 * timms:.0f}", f"{timms / mine:.2f}"]
            ratios.append(timms / mine)
        rows.append(row)
    print(f"{processor()}, {threads} thread(s), torch {torch.__version__}, float32, medians")
    print(table(HEADER, rows))
    print(f"geometric mean {geometric_mean(ratios):.2f}")
