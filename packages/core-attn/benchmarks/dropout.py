"""core_attn.dropout beside torch's on the CPU: python -m benchmarks.dropout [threads]

Ratios are torch's time over ours: above 1 we are faster.
"""

import sys

import torch
import torch.nn.functional as F

from core_attn import dropout
from core_attn.testing.timing import medians, processor, table

SHAPES = ((4, 200, 2048), (4, 8, 200, 200), (4, 8, 600, 600))  # of a synthesizer's training step


def row(shape: tuple[int, ...]) -> list[str]:
    x, grad = torch.randn(shape, requires_grad=True), torch.randn(shape)
    drops = (dropout, F.dropout)
    with torch.no_grad():
        forward = medians([lambda f=f: f(x, 0.1) for f in drops], 2.0)
    both = medians([lambda f=f: torch.autograd.grad(f(x, 0.1), x, grad) for f in drops], 2.0)
    cells = [str(shape)[1:-1]]
    for ours, theirs in (forward, both):
        cells += [f"{1e3 * ours:.2f}", f"{1e3 * theirs:.2f}", f"{theirs / ours:.1f}x"]
    return cells


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    print(f"{processor()}, {threads} thread(s), torch {torch.__version__}, float32, medians")
    header = ("shape", "ours ms", "torch ms", "forward", "ours ms", "torch ms", "forward+backward")
    print(table(header, [row(shape) for shape in SHAPES]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
