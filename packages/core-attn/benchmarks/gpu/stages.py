"""One case of each stage; every function here runs in a worker process and returns a row."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core_attn.ops._triton_host import Tiles, arch_of

from ..kernels_roofline import CARDS
from .operators import OPERATORS, Problem, Shape
from .rivals import ours, run_of

Row = dict[str, Any]
PAUSE = 6_000_000  # cycles: 3 ms, longer than Python takes for a step of any row
L2 = 256 << 20  # bytes that push everything else out of a second-level cache
SWEEP = [
    Tiles(q, k, w, s) for q in (64, 128) for k in (32, 64, 128) for w in (4, 8) for s in (2, 3)
]


class Case(NamedTuple):
    """What is measured; `rival` only in the timings, `tiles` only in the sweep."""

    operator: str
    feature: str
    dtype: str
    shape: Shape
    rival: str = "ours"
    tiles: tuple[int, int, int, int] | None = None

    def named(self) -> Row:
        """As the beginning of a row."""
        return {name: x for name, x in self._asdict().items() if x is not None}

    def problem(self, device: torch.device) -> Problem:
        dtype = getattr(torch, self.dtype)
        return OPERATORS[self.operator].make(self.shape, self.feature, dtype, device)


def here() -> torch.device:
    """The GPU; the CPU for a dry run under the interpreter."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> Row:
    """What the figures are of."""
    device = here()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "interpreter"
    return {"device": name, "torch": torch.__version__, "devices": torch.cuda.device_count()}


def errors(case: Case) -> Row:
    """Largest differences from float64, over the largest entry, of the output and each gradient.

    Beside ours stand those of the reference in the same dtype: what rounding alone would cost.
    """
    problem = case.problem(here())
    exact = _results(case, problem.copy(torch.float64), "reference")
    row = {}
    for name, backend in (("ours", "triton"), ("reference", "reference")):
        got = _results(case, problem, backend)
        pairs = zip(got, exact, strict=True)
        row[name] = [float(f"{_distance(a, b):.1e}") for a, b in pairs]
    worse = max(a / max(b, 1e-9) for a, b in zip(row["ours"], row["reference"], strict=True))
    return row | {"ratio": round(worse, 2), "ok": all(map(math.isfinite, row["ours"]))}


def _results(case: Case, problem: Problem, backend: str) -> list[Tensor]:
    out = ours(case.operator, problem, backend)
    cotangent = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out).to(out.dtype)
    return [out, *torch.autograd.grad(out, problem.leaves, cotangent)]


def _distance(got: Tensor, exact: Tensor) -> float:
    got, exact = got.detach().double(), exact.detach()
    return float((got - exact).abs().max() / exact.abs().max().clamp(min=1e-30))


def warm(case: Case) -> Row:
    """Lets the compilers fill their caches on the disk; the timing follows in another process."""
    problem = case.problem(here())
    out = run_of(case.rival, case.operator, case.feature, problem)()
    if case.feature != "decode":
        torch.autograd.grad(out, problem.leaves, torch.ones_like(out))
    return {}


def timings(case: Case) -> Row:
    """Milliseconds forward, backward and both, and what they are of the peaks.

    As called from Python, and behind a pause of the GPU, which leaves the GPU's own time.
    """
    problem = case.problem(here())
    run = run_of(case.rival, case.operator, case.feature, problem)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = run()
    cotangent = torch.randn_like(out)
    row = {"forward ms": milliseconds(run), "forward GPU ms": milliseconds(run, PAUSE)}
    both = gradients = None
    if case.feature != "decode":
        gradients = torch.autograd.grad(out, problem.leaves, cotangent, retain_graph=True)
        row["backward ms"] = milliseconds(
            lambda: torch.autograd.grad(out, problem.leaves, cotangent, retain_graph=True)
        )
        step = lambda: torch.autograd.grad(run(), problem.leaves, cotangent)  # noqa: E731
        row["both ms"] = milliseconds(step)
        row["both GPU ms"] = both = milliseconds(step, PAUSE)
    row["peak MiB"] = (torch.cuda.max_memory_allocated() - before) >> 20
    flops = OPERATORS[case.operator].flops(case.shape, case.feature)
    size = sum(x.numel() * x.element_size() for x in (*problem.leaves, out))
    row |= _rates("forward", row["forward GPU ms"], flops, size, case.dtype)
    if both:
        moved = 2 * size + sum(x.numel() * x.element_size() for x in gradients or ())
        row |= _rates("both", both, 3.5 * flops, moved, case.dtype)
    return {name: float(f"{x:.4g}") if isinstance(x, float) else x for name, x in row.items()}


def _rates(name: str, ms: float, flops: float, size: int, dtype: str) -> Row:
    card = CARDS[arch_of(here())]
    peak = card.single if dtype == "float32" else card.half
    rate, moved = flops / ms * 1e3, size / ms * 1e3
    return {
        f"{name} TFLOP/s": rate / 1e12,
        f"{name} GB/s": moved / 1e9,
        f"{name} of {card.name}": max(rate / peak, moved / card.memory),
    }


def milliseconds(run: Callable[[], object], pause: int = 0, seconds: float = 0.15) -> float:
    """The median by CUDA events, the second-level cache flushed before every run.

    During a pause (cycles of the GPU) Python launches what `run` does.
    """
    flush = torch.empty(L2, dtype=torch.int8, device="cuda")
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    pairs, stop = [], time.perf_counter() + seconds
    while len(pairs) < 5 or (time.perf_counter() < stop and len(pairs) < 100):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        torch.cuda._sleep(pause)
        start.record()
        run()
        end.record()
        end.synchronize()
        pairs.append((start, end))
    return statistics.median(start.elapsed_time(end) for start, end in pairs)


def sweep(case: Case) -> Row:
    """The forward kernel of `attention` with other tiles than the table's."""
    from core_attn.ops._attention.triton_call import Inputs
    from core_attn.ops._attention.triton_forward import plan

    q, k, v = case.problem(here()).tensors
    nothing = dict.fromkeys(("bias", "mask", "lengths", "gate", "seed", "k_map", "v_map", "window"))
    x = Inputs(q, k, v, **nothing, scale=q.shape[-1] ** -0.5, dropout=0.0)
    tiles = None if case.tiles is None else Tiles(*case.tiles)
    (launch, *_), _ = plan(x, arch_of(here()), tiles)
    used = [launch.args[name] for name in ("BLOCK_Q", "BLOCK_K", "num_warps", "num_stages")]
    ms = milliseconds(launch)
    flops = OPERATORS[case.operator].flops(case.shape, case.feature)
    return {"used": used, "forward ms": float(f"{ms:.4g}"), "TFLOP/s": round(flops / ms / 1e9, 1)}
