"""short_attention and attention beside F.scaled_dot_product_attention on the CPU.

    python -m benchmarks.short_attention [--threads N] [--seconds S]

Ratios are SDPA's time over ours: above 1 we are faster.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attn import attention, short_attention, why
from core_attn.testing.timing import geometric_mean, medians, processor, table

SHORT = (
    (1024, 2, 39, 32),
    (1024, 2, 39, 16),
    (4096, 8, 20, 16),
    (1000, 8, 18, 32),
    (256, 6, 49, 32),
    (512, 8, 64, 16),
)
LONG = (
    ((8, 6, 197, 64), False),
    ((32, 3, 197, 64), False),
    ((4, 8, 1024, 64), False),
    ((4, 8, 1024, 64), True),
)
DECODING = ((1, 32, 2, 4096, 64), (1, 8, 2, 512, 64), (4, 16, 4, 1024, 64))
HEADER = (
    "batch, heads, tokens, dim", "ours ms", "sdpa ms", "forward", "ours ms", "sdpa ms",
    "forward+backward", "error out", "error grad",
)  # fmt: skip
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def gradients(attend: Attend, q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(attend(q, k, v), (q, k, v), grad)


def compare(
    name: str, shape: tuple[int, ...], ours: Attend, theirs: Attend, seconds: float
) -> tuple[list[str], float, float]:
    """A row of the table, and the ratios forward and forward + backward."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(shape, generator=generator) for _ in range(4))
    forward = medians([lambda f=f: f(q, k, v) for f in (ours, theirs)], seconds)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    both = medians([lambda f=f: gradients(f, *leaves, grad) for f in (ours, theirs)], seconds)

    few = [x[:64].detach() for x in (q, k, v, grad)]
    exact = [x.double().requires_grad_() for x in few[:3]]
    few[:3] = [x.requires_grad_() for x in few[:3]]
    error = _distance(ours(*few[:3]), theirs(*exact))
    grad_error = max(
        map(_distance, gradients(ours, *few), gradients(theirs, *exact, few[3].double()))
    )
    ratios = forward[1] / forward[0], both[1] / both[0]
    row = [
        name,
        *(f"{1e3 * t:.2f}" for t in forward), f"{ratios[0]:.2f}x",
        *(f"{1e3 * t:.2f}" for t in both), f"{ratios[1]:.2f}x",
        f"{error:.1e}", f"{grad_error:.1e}",
    ]  # fmt: skip
    return row, *ratios


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def section(title: str, compared: list[tuple[list[str], float, float]]) -> None:
    rows, forward, both = zip(*compared, strict=True)
    means = ("geometric mean", "", "", f"{geometric_mean(forward):.2f}x", "", "",
             f"{geometric_mean(both):.2f}x", "", "")  # fmt: skip
    print(f"\n{title}\n{table(HEADER, [*rows, means])}")


def decoding(shape: tuple[int, ...], seconds: float) -> list[str]:
    """A row for one query of heads in groups: SDPA's own way, and with keys laid out per head."""
    batch, heads, stored, keys, dim = shape
    q = torch.randn(batch, heads, 1, dim)
    k, v = torch.randn(2, batch, stored, keys, dim).unbind(0)

    def laid_out() -> Tensor:
        each = (x.repeat_interleave(heads // stored, 1) for x in (k, v))
        return F.scaled_dot_product_attention(q, *each)

    def ours() -> Tensor:
        return attention(q, k, v, causal=True)

    def grouped() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    first, second = medians([ours, grouped], seconds)
    again, third = medians([ours, laid_out], seconds)  # what it lays out drives keys from the cache
    ratios = f"{second / first:.2f}x", f"{third / again:.2f}x"
    return [str(shape)[1:-1], *(f"{1e3 * time:.3f}" for time in (first, second, third)), *ratios]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="per measurement")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{processor()}, {options.threads} thread(s), torch {torch.__version__}, float32; medians "
        "of alternating runs;\nerror: largest difference from float64 over 64 batch entries"
    )
    q = torch.randn(2, 2, 39, 32)
    print(why(short_attention, q, q, q))

    sdpa = F.scaled_dot_product_attention
    short = [compare(str(shape)[1:-1], shape, short_attention, sdpa, options.seconds)
             for shape in SHORT]  # fmt: skip
    section("short_attention / SDPA", short)
    long = [
        compare(
            str(shape)[1:-1] + (", causal" if causal else ""),
            shape,
            lambda q, k, v, causal=causal: attention(q, k, v, causal=causal),
            lambda q, k, v, causal=causal: sdpa(q, k, v, is_causal=causal),
            options.seconds,
        )
        for shape, causal in LONG
    ]
    section("attention / SDPA", long)
    header = ("batch, heads, stored, keys, dim", "ours ms", "grouped ms", "laid out ms",
              "grouped", "laid out")  # fmt: skip
    rows = [decoding(shape, options.seconds) for shape in DECODING]
    print(f"\none query, heads in groups / SDPA\n{table(header, rows)}")


if __name__ == "__main__":
    main()
