"""DeiT here beside timm's, the same weights, on the CPU.

    python -m benchmarks.vit [--threads N] [--seconds S]

Ratios are timm's time over ours: above 1 we are faster.
"""

import argparse

import timm
import torch

from attn_vision import VisionTransformer
from attn_vision.official import vit
from core_attn import why
from core_attn.testing.timing import geometric_mean, medians, processor, table

# name, batch, image, patch, dim, depth, heads
SHAPES = (
    ("DeiT-Ti, 224 px", 4, 224, 16, 192, 12, 3),
    ("DeiT-S, 224 px", 2, 224, 16, 384, 12, 6),
    ("DeiT-Ti, 32 px, patch 4", 32, 32, 4, 192, 12, 3),
    ("DeiT-Ti, 8 px, patch 2", 64, 8, 2, 192, 12, 3),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="per measurement")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows, ratios = [], []
    for name, batch, size, patch, dim, depth, heads in SHAPES:
        arguments = {
            "img_size": size, "patch_size": patch, "embed_dim": dim, "depth": depth,
            "num_heads": heads, "num_classes": 1000,
        }  # fmt: skip
        theirs = timm.models.VisionTransformer(**arguments)
        ours = VisionTransformer(vit.convert_config(arguments, theirs.state_dict()))
        ours.load_state_dict(vit.convert(theirs.state_dict()))
        images = torch.randn(batch, 3, size, size)
        backend = why(ours, images)[0].backend

        def infer(model, images=images):
            with torch.inference_mode():
                model(images)

        def train(model, images=images):
            model(images).square().mean().backward()

        row = [name, str(batch), backend]
        for run in (infer, train):
            mine, timms = medians(
                [lambda m=m, run=run: run(m) for m in (ours, theirs)], options.seconds
            )
            row += [f"{1e3 * mine:.0f}", f"{1e3 * timms:.0f}", f"{timms / mine:.2f}"]
            ratios.append(timms / mine)
        rows.append(row)
    print(
        f"{processor()}, {options.threads} thread(s), torch {torch.__version__}, float32, medians"
    )
    header = ["model", "batch", "backend", "ours ms", "timm ms", "inference", "ours ms", "timm ms",
              "training"]  # fmt: skip
    print(table(header, rows))
    print(f"geometric mean {geometric_mean(ratios):.2f}")


if __name__ == "__main__":
    main()
