"""python -m benchmarks.vit [--threads N] [--seconds S]: DeiT here beside timm's."""

from jsonargparse import auto_cli

from attn_vision.cli import bench

if __name__ == "__main__":
    auto_cli(bench, as_positional=False)
