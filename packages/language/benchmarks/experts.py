"""Union of Experts: is the share of operations that routing saves saved in time?

python -m benchmarks.experts [threads]
"""

import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

from attn_language import create
from core_attn.testing.timing import medians, processor, table


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    shape = {"vocab": 256, "dim": 256, "depth": 2, "heads": 8, "experts": 8, "context": 512}
    rows = []
    ids = torch.randint(256, (2, 512))
    for training in (False, True):
        runs, counts, names = [], [], []
        for taken in (8, 4, 2):
            taking = {"heads_per_token": taken, "experts_per_token": taken}
            model = create("uoe_expert", **shape, **taking).train(training)

            def once(model=model, training=training):
                with torch.set_grad_enabled(training):
                    out = model(ids)
                if training:
                    out.square().mean().backward()

            with FlopCounterMode(display=False) as counter:
                once()
            runs.append(once)
            counts.append(counter.get_total_flops())
            names.append(f"{taken} of 8" + (", with gradients" if training else ""))
        for name, count, time in zip(names, counts, medians(runs, 8), strict=True):
            rows.append((name, count, time, counts[0]))
        whole = rows[-3][2]
        rows[-3:] = [
            [name, f"{count / 1e9:.2f}", f"{1e3 * time:.1f}", f"{count / first:.2f}",
             f"{time / whole:.2f}"]
            for name, count, time, first in rows[-3:]
        ]  # fmt: skip
    print(f"{processor()}, {threads} thread(s), torch {torch.__version__}, float32, medians")
    print(table(("experts a token", "GFLOP", "ms", "share of FLOP", "share of time"), rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
