"""Fair timing of rivals: alternating runs in one process, medians."""

import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..allocator import keep_freed_memory


def medians(rivals: Sequence[Callable[[], object]], seconds: float = 2.0) -> list[float]:
    """Median seconds of each rival; they take turns, so that all see the same machine.

    One untimed turn comes first. Turns go on for about `seconds` in all, 5 to 200 of them. Freed
    memory stays with the process: else what one rival gives back costs the next its page faults.

    Example:
        >>> len(medians((lambda: sum(range(10)), lambda: sum(range(1000))), 0.01))
        2
    """
    keep_freed_memory()
    for rival in rivals:
        rival()
    times: list[list[float]] = [[] for _ in rivals]
    end = time.perf_counter() + seconds
    for turn in range(200):
        if turn >= 5 and time.perf_counter() > end:
            break
        for rival, taken in zip(rivals, times, strict=True):
            start = time.perf_counter()
            rival()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def geometric_mean(values: Iterable[float]) -> float:
    """exp of the mean of the logarithms.

    Example:
        >>> round(geometric_mean([1.0, 4.0]), 6)
        2.0
    """
    return math.exp(statistics.fmean(map(math.log, values)))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns aligned to the right, the first one to the left.

    Example:
        >>> print(table(("what", "ms"), [("ours", "1.5"), ("theirs", "20.0")]))
        what      ms
        ours     1.5
        theirs  20.0
    """
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
