"""python -m benchmarks.convit [--threads N] [--seconds S]: ConViT here beside timm's."""

import timm
import torch
from jsonargparse import auto_cli

from attn_vision.official import convit
from benchmarks.ratios import compare, inference


def main(threads: int = 1, seconds: float = 10.0) -> None:
    """Same weights, one forward pass without gradients."""
    cases = {}
    for name, heads, batch in (("ConViT-Ti, 224 px, batch 4", 4, 4), ("ConViT-S, batch 2", 9, 2)):
        options = {"embed_dim": 48, "num_heads": heads, "local_up_to_layer": 10}
        timms = timm.models.ConVit(**options).eval()
        config = convit.config_from(options, timms.state_dict())
        ours = config.build().eval()
        ours.load_state_dict(convit.from_official(timms.state_dict(), config))
        images = torch.randn(batch, 3, 224, 224)
        cases[name] = (inference(ours, images), inference(timms, images))
    compare(cases, threads=threads, seconds=seconds)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
