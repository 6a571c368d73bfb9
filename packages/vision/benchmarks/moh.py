"""python -m benchmarks.moh [--threads N] [--seconds S]: attention with gated heads beside dense."""

import torch
from jsonargparse import auto_cli

from benchmarks.ratios import compare, inference
from core_attn import MixtureOfHeadAttention, MultiHeadAttention


def main(threads: int = 1, seconds: float = 10.0) -> None:
    """One layer of 384 features and 8 heads, a balanced router, batch 2."""
    cases = {}
    for tokens in (197, 1024):
        x = torch.randn(2, tokens, 384)
        dense = MultiHeadAttention(384, 8).eval()
        for shared, routed in ((2, 2), (2, 4)):
            layer = MixtureOfHeadAttention(384, 8, shared, routed).eval()
            share = (shared + routed) / 8
            name = f"{tokens} tokens, {share:.0%} of the heads"
            cases[name] = (inference(layer, x), inference(dense, x))
    compare(cases, threads=threads, seconds=seconds)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
