"""Decoding with and without kept keys and values, one text and eight at once, the paper's model."""

import argparse

from attn_speech.bench import bench
from benchmarks.measuring import peak_mib


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--model", default="tts_paper")
    options = parser.parse_args()
    bench(options.model, options.frames, options.threads, options.repeats)
    print(f"peak memory {peak_mib():.0f} MiB")


if __name__ == "__main__":
    main()
