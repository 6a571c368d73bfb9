"""What the benchmarks of single systems share: pairs of calls, alternating, and their ratios."""

import ctypes
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from core_attn.testing.timing import medians, processor, table

HEADER = ("case", "ours ms", "other ms", "ratio", "ours MiB", "other MiB")


def compare(
    cases: dict[str, tuple[Callable[[], object], Callable[[], object]]],
    *,
    threads: int,
    seconds: float,
) -> None:
    """Prints medians of ours and the other, alternating, and what memory a call adds at its peak.

    Above 1 ours is faster.
    """
    torch.set_num_threads(threads)
    rows = []
    for name, pair in cases.items():
        memory = [peak(call) for call in pair]
        mine, theirs = medians(pair, seconds)
        times = f"{1e3 * mine:.1f}", f"{1e3 * theirs:.1f}", f"{theirs / mine:.2f}"
        rows.append([name, *times, *(f"{size:.0f}" for size in memory)])
    print(f"{processor()}, {threads} thread(s), torch {torch.__version__}, float32, medians")
    print(table(HEADER, rows))


def peak(call: Callable[[], object]) -> float:
    """The most memory that a call adds, in MiB, measured in a copy of the process."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_measure, args=(call, theirs))
    process.start()
    found = ours.recv()
    process.join()
    return found


def _measure(call: Callable[[], object], answer: Connection) -> None:
    torch.set_num_threads(1)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = _status("VmRSS")
    call()
    answer.send((_status("VmHWM") - before) / 1024)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def inference(model: torch.nn.Module, *inputs: torch.Tensor) -> Callable[[], object]:
    """A call without gradients."""

    def run() -> object:
        with torch.inference_mode():
            return model(*inputs)

    return run
