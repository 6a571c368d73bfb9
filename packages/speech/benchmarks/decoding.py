"""Decoding with and without kept keys and values, one text and eight at once, the paper's model."""

import argparse

import torch

from attn_speech.models import create
from attn_speech.models.decoding import DecodeOptions, decode
from benchmarks.measuring import alternating, peak_mib


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--model", default="tts_paper")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = create(options.model, reduction=1).eval()
    text, lengths = torch.randint(1, 60, (8, 49)), torch.full((8,), 49)
    rules = {"threshold": 2.0, "max_ratio": options.frames / 50}

    def run(rows, cached=True):
        return decode(
            model, text[:rows], lengths[:rows], options=DecodeOptions(**rules, cached=cached)
        )

    took = alternating(
        {
            "cached": lambda: run(1),
            "uncached": lambda: run(1, cached=False),
            "eight at once": lambda: run(8),
        },
        options.repeats,
    )
    print(f"threads {options.threads}, {options.frames} frames, {options.model}")
    print(f"uncached {took['uncached']:.2f} s / cached {took['cached']:.2f} s = "
          f"{took['uncached'] / took['cached']:.1f}x")  # fmt: skip
    print(f"eight one by one {8 * took['cached']:.2f} s / at once {took['eight at once']:.2f} s = "
          f"{8 * took['cached'] / took['eight at once']:.1f}x")  # fmt: skip
    print(f"peak memory {peak_mib():.0f} MiB")


if __name__ == "__main__":
    main()
