"""python -m benchmarks.evit [--threads N] [--seconds S]: EViT beside DeiT of the same weights."""

import torch
from jsonargparse import auto_cli

from attn_vision import create
from attn_vision.models.evit import EViTConfig, keep_schedule, multiply_adds
from benchmarks.ratios import compare, inference


def main(threads: int = 1, seconds: float = 10.0) -> None:
    """Keep rates 0.7 and 0.5 at blocks 3, 6 and 9 of DeiT-S at 224 px."""
    dense, cases = create("deit_small").eval(), {}
    for rate in (0.7, 0.5):
        config = EViTConfig(dim=384, heads=6, keep_rates=keep_schedule(12, rate))
        ours = config.build().eval()
        ours.load_state_dict(dense.state_dict())
        allowed = 4.6e9 / multiply_adds(config)
        for batch in (1, 4, 8):
            images = torch.randn(batch, 3, 224, 224)
            name = f"keep {rate}, batch {batch} (products allow {allowed:.2f})"
            cases[name] = (inference(ours, images), inference(dense, images))
    compare(cases, threads=threads, seconds=seconds)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
