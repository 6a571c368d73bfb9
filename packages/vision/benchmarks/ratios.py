"""What the benchmarks of single systems share: pairs of calls, alternating, and their ratios."""

from collections.abc import Callable

import torch

from core_attn.testing.timing import medians, processor, table

HEADER = ("case", "ours ms", "other ms", "ratio")


def compare(
    cases: dict[str, tuple[Callable[[], object], Callable[[], object]]],
    *,
    threads: int,
    seconds: float,
) -> None:
    """Prints medians of ours and the other, alternating; above 1 ours is faster."""
    torch.set_num_threads(threads)
    rows = []
    for name, (ours, other) in cases.items():
        mine, theirs = medians([ours, other], seconds)
        rows.append([name, f"{1e3 * mine:.1f}", f"{1e3 * theirs:.1f}", f"{theirs / mine:.2f}"])
    print(f"{processor()}, {threads} thread(s), torch {torch.__version__}, float32, medians")
    print(table(HEADER, rows))


def inference(model: torch.nn.Module, *inputs: torch.Tensor) -> Callable[[], object]:
    """A call without gradients."""

    def run() -> object:
        with torch.inference_mode():
            return model(*inputs)

    return run
