"""WaveNet's generation: compiled step, plain steps with the same cache, and no cache at all."""

import argparse

import torch

from attn_speech.models import create
from attn_speech.models.generation import KERNEL, Generation
from benchmarks.measuring import alternating, peak_mib


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = create("wavenet_mol").eval()
    print(
        f"threads {options.threads}, 24 layers, 128/256/128; compiled: {KERNEL.missing() or 'yes'}"
    )
    for batch in (1, 8):
        mels = torch.randn(batch, 80, options.samples // 256 + 4)
        field = model.config.receptive_field

        def cached(native, count, batch=batch, mels=mels):
            run = Generation(model, mels, None, options.samples, batch=batch, native=native)
            noise = torch.rand(count, batch, model.config.out_channels // 3 + 2)
            run.advance(count, noise.clamp(1e-5, 1 - 1e-5))

        cond = model.conditions(mels, options.samples)[..., :field].detach()

        @torch.no_grad()
        def uncached(count=4, batch=batch, cond=cond, field=field):
            for _ in range(count):  # a whole receptive field for every sample
                h, total = model.first(torch.zeros(batch, 1, field)), 0.0
                for layer in model.layers:
                    h, skip = layer(h, cond, None)
                    total = total + skip
                model.last2(model.last1(total.relu()).relu())

        few = max(8, options.samples // 16)
        took = alternating(
            {
                "compiled": lambda c=cached: c(True, options.samples),
                "plain": lambda c=cached, f=few: c(False, f),
                "uncached": uncached,
            },
            options.repeats,
        )
        rate = {
            "compiled": batch * options.samples / took["compiled"],
            "plain": batch * few / took["plain"],
            "uncached": batch * 4 / took["uncached"],
        }
        print(
            f"batch {batch}: compiled {rate['compiled']:.0f} samples/s, "
            f"plain {rate['plain']:.0f} ({rate['compiled'] / rate['plain']:.1f}x), "
            f"uncached {rate['uncached']:.1f} ({rate['compiled'] / rate['uncached']:.0f}x); "
            f"peak {peak_mib():.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
