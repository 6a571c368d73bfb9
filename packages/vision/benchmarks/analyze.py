"""What looking into a vision transformer costs, each part one command:

python -m benchmarks.analyze restart     leave-one-out of DeiT-Ti, restarted against whole runs
python -m benchmarks.analyze recording   `record(..., "heads")` beside a plain forward
python -m benchmarks.analyze timm        patterns by timm's AttentionExtract and by `record`
python -m benchmarks.analyze strength    the strength view of DeiT-Ti on 50 images
python -m benchmarks.analyze memory      the strength view of DeiT-B on 200 images
"""

import copy
import resource
import sys
import time
from collections.abc import Iterator

import timm
import torch
from timm.utils import AttentionExtract

from attn_vision import create
from core_attn import record
from core_attn.analysis import (
    Bench,
    Layout,
    attention_strength,
    find_sites,
    head_importance,
    measure,
)
from core_attn.testing.timing import medians, processor


def images(count: int) -> torch.Tensor:
    """Noise: the time does not depend on what is seen."""
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def restart() -> None:
    """Every head of DeiT-Ti on one image, both ways."""
    bench = Bench(create("deit_tiny").eval(), [(images(1), None)])
    inputs = bench.batches[0][0]

    def plain() -> torch.Tensor:
        whole, losses = bench.outcome(inputs), []
        for name, count in bench.num_heads.items():
            for head in range(count):
                with bench.removed([(name, head)]):
                    losses.append(measure("js", whole, bench.outcome(inputs)))
        return torch.stack(losses, 1)

    ours, theirs = medians((lambda: head_importance(bench, metrics=["js"]), plain), 30)
    apart = (head_importance(bench).values["js"].flatten(1) - plain()).abs().max()
    print(f"36 heads: restarted {ours:.2f} s, plain loop {theirs:.2f} s, {theirs / ours:.2f}x; "
          f"largest difference {apart:.1e}", flush=True)  # fmt: skip


def recording() -> None:
    """One image and eight, DeiT-Ti, while a recording is open; opening and closing it apart."""
    model = create("deit_tiny").eval()
    shared = {id(x): x for x in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)  # the same weights in the same memory

    def opened() -> None:
        with record(model, "heads"):
            pass

    with record(twin, "heads"):
        for count in (1, 8):
            x = images(count)
            runs = (lambda x=x: model(x), lambda x=x: twin(x), lambda x=x: model(x))
            plain, seen, again = medians(runs, 100)
            print(f"{count} images: forward {1000 * plain:.1f} ms, recorded {1000 * seen:.1f} ms, "
                  f"{100 * (seen / plain - 1):+.1f} %; a second plain forward, the noise, "
                  f"{100 * (again / plain - 1):+.1f} %", flush=True)  # fmt: skip
    print(f"opening and closing: {1000 * medians((opened,), 100)[0]:.2f} ms")


def beside_timm() -> None:
    """All patterns of timm's DeiT-Ti on eight images."""
    model = timm.create_model("deit_tiny_patch16_224").eval()
    sites, x = find_sites(model), images(8)

    def ours() -> dict:
        with sites.record("pattern") as seen:
            model(x)
        return dict(seen)

    plain, mine = medians((lambda: model(x), ours), 8)
    for block in model.blocks:
        block.attn.fused_attn = False  # the reader of timm needs this, for good
    theirs = AttentionExtract(model, method="hook")
    unfused, other = medians((lambda: model(x), lambda: theirs(x)), 8)
    pairs = zip(ours().values(), theirs(x).values(), strict=True)
    same = all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)
    print(f"forward {1000 * plain:.0f} ms, without the fused kernel {1000 * unfused:.0f} ms; "
          f"patterns by record {1000 * mine:.0f} ms, by AttentionExtract {1000 * other:.0f} ms; "
          f"equal: {same}")  # fmt: skip


def strength(name: str = "deit_tiny", count: int = 50, batch: int = 10) -> None:
    """Time and peak memory of the process, which is told as images pass."""
    model, start, seen = create(name).eval(), time.perf_counter(), 0

    def told() -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(f"{name}, {seen} images: {time.perf_counter() - start:.1f} s, peak of the process "
              f"{peak:.2f} GiB", flush=True)  # fmt: skip

    def stream() -> Iterator[torch.Tensor]:
        nonlocal seen
        for first in range(0, count, batch):
            yield images(min(batch, count - first))
            seen = min(first + batch, count)
            if seen in (30, 50, 100, count):
                told()

    attention_strength(model, stream(), Layout((14, 14), 1), find_sites(model))


PARTS = {
    "restart": restart,
    "recording": recording,
    "timm": beside_timm,
    "strength": strength,
    "memory": lambda: strength("deit_base", 200),
}

if __name__ == "__main__":
    with torch.no_grad():
        print(f"{processor()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
        for part in sys.argv[1:] or PARTS:
            PARTS[part]()
