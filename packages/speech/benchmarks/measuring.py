"""Medians of alternating runs, and the memory they took."""

import resource
import statistics
import time
from collections.abc import Callable


def alternating(runs: dict[str, Callable[[], object]], repeats: int = 3) -> dict[str, float]:
    """The median seconds of each, run in turns after one run that does not count."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_mib() -> float:
    """The most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
