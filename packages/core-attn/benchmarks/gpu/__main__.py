"""Everything to find out on the day a GPU is there, in under 8 minutes.

    python -m benchmarks.gpu [--out gpu.jsonl] [--minutes 7.5] [--stages 1234] [--dry]

Stage 1 runs the kernels' tests on the GPU; stage 2 compares every kernel, dtype, head dim and
feature with float64; stage 3 times forward, backward and both beside SDPA's flash, cuDNN and
efficient kernels and FlexAttention; stage 4 tries other tiles. Every row is in the file as soon as
it is known, a case that fails or hangs is a row too, and a stage out of time leaves its rest
unmeasured. --dry runs stages 1 and 2 at tiny sizes under Triton's interpreter, without a GPU.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import torch

from . import stages
from .operators import OPERATORS
from .rivals import NAMES
from .stages import Case, Row
from .worker import Worker

SHARES = {"1": 0.22, "2": 0.24, "3": 0.44, "4": 0.1}  # of the time; what is left over goes on
PATIENCE = 40.0  # seconds for one case, compilation included
MOST = 14  # processes at once that compile kernels
TESTS = Path(__file__).parents[2] / "tests" / "kernels"
DRY_TESTS = "window_of_one or strided_lengths"


class Report:
    """Rows on the screen and, each at once, in a file."""

    def __init__(self, file: IO[str]):
        self.file, self.rows = file, 0

    def add(self, **row: Any) -> None:
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        print("  ".join(f"{name}={value}" for name, value in row.items()), flush=True)
        self.rows += 1


def run_tests(report: Report, deadline: float, dry: bool) -> None:
    """Stage 1: pytest's results, line by line."""
    command = [sys.executable, "-m", "pytest", "-v", "-ra", "--tb=line", "-p", "no:cacheprovider"]
    command += [str(TESTS), "-k", DRY_TESTS if dry else "not interpreter"]
    if not dry:
        command += ["-n", str(min(MOST, os.cpu_count() or 1))]  # compiling is most of it
    environment = os.environ | ({"TRITON_INTERPRET": "1"} if dry else {})
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd=TESTS.parents[1],
    )  # fmt: skip
    timer = threading.Timer(max(deadline - time.monotonic(), 0), process.kill)
    timer.start()
    for line in process.stdout or ():
        outcome = re.search(r"\b(PASSED|FAILED|ERROR)\b", line)
        test = re.search(r"tests/kernels/\S+::.*?(?= PASSED| FAILED| ERROR| - |$)", line)
        if outcome and test and not line.startswith(outcome[1]):  # pytest's summary says it again
            report.add(stage="tests", test=test[0].strip(), outcome=outcome[1].lower())
        elif re.match(r"FAILED|ERROR|SKIPPED|E  |=+ .*\bin\b", line):
            report.add(stage="tests", pytest=line.strip().strip("= "))
    timer.cancel()
    if process.wait() < 0:
        report.add(stage="tests", error="out of time; the other tests were not run")


def error_cases(dry: bool) -> Iterator[Case]:
    """Stage 2. The head dims of every feature first, since the cheap ones tell most."""
    for name, subject in OPERATORS.items():
        for shape in subject.checked[: 1 if dry else None]:
            for dtype in ("float32",) if dry else subject.dtypes:
                if dtype == "float32" and shape[-1] > 64:
                    continue  # no kernel takes these
                for feature in subject.features:
                    yield Case(name, feature, dtype, shape)


def timing_cases() -> Iterator[Case]:
    """Stage 3: ours and SDPA's first, the slow compilations of FlexAttention last."""
    for late in (False, True):
        # Every case in an operator's first dtype, then one in the others.
        for first in (True, False):
            for name, subject in OPERATORS.items():
                for dtype in subject.dtypes[:1] if first else subject.dtypes[1:]:
                    rivals = NAMES if subject.has_rivals else ("ours", "composed")
                    rivals = [rival for rival in rivals if (rival == "flex") == late]
                    for shape, feature in subject.timed[: None if first else 1]:
                        yield from (Case(name, feature, dtype, shape, rival) for rival in rivals)


def sweep_cases() -> Iterator[Case]:
    """Stage 4: the table's tiles, then others."""
    for shape in ((4, 16, 2048, 64), (4, 16, 2048, 128)):
        for tiles in (None, *stages.SWEEP):
            yield Case("attention", "plain", "bfloat16", shape, tiles=tiles and tuple(tiles))


def run_cases(
    report: Report | None, function: Callable[[Case], Row], cases: Iterable[Case], deadline: float,
    workers: int = 1,
) -> None:  # fmt: skip
    """Measures the cases until the time is over, several at once where they are not timed."""
    wanted, idle = list(cases), [Worker() for _ in range(workers)]
    lock = threading.Lock()

    def measure(case: Case) -> bool:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        worker = idle.pop()  # there are as many as threads
        row = worker.run(function, case, seconds=min(PATIENCE, left + 5))
        idle.append(worker)
        with lock:
            if report is not None:
                report.add(stage=function.__name__, **case.named(), **row)
        return True

    with ThreadPoolExecutor(workers) as pool:
        missed = list(pool.map(measure, wanted)).count(False)
    for worker in idle:
        worker.stop()
    if missed and report is not None:
        report.add(stage=function.__name__, error=f"out of time, {missed} cases not measured")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"), help="a line per row")
    parser.add_argument("--minutes", type=float, default=7.5, help="for everything together")
    parser.add_argument("--stages", default="1234", help="which ones, as 23")
    parser.add_argument("--dry", action="store_true", help="tiny, interpreted, without a GPU")
    options = parser.parse_args()
    unknown = set(options.stages) - set(SHARES)
    if unknown or not options.stages:
        parser.error(f"--stages takes some of 1234, got {options.stages!r}")
    if options.dry:
        os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    elif not torch.cuda.is_available():
        print("torch sees no GPU; --dry tries what can be tried without one", file=sys.stderr)
        return 2
    start, share = time.monotonic(), 0.0
    total = sum(SHARES[stage] for stage in options.stages)
    many = 1 if options.dry else min(MOST, os.cpu_count() or 1)
    with options.out.open("a") as file:
        report = Report(file)
        worker = Worker()
        report.add(stage="machine", **worker.run(stages.machine, seconds=120))
        worker.stop()
        for stage in sorted(options.stages):
            began = time.monotonic()
            share += SHARES[stage] / total
            deadline = start + 60 * options.minutes * share
            if stage == "1":
                run_tests(report, deadline, options.dry)
            elif stage == "2":
                run_cases(report, stages.errors, error_cases(options.dry), deadline, many)
            elif options.dry:
                report.add(stage=stage, error="torch sees no GPU: nothing to time")
            elif stage == "3":
                compiled = [x for x in timing_cases() if x.rival in ("ours", "flex")]
                halfway = (began + deadline) / 2
                run_cases(None, stages.warm, compiled, halfway, many)
                run_cases(report, stages.timings, timing_cases(), deadline)
            else:
                run_cases(report, stages.sweep, sweep_cases(), deadline)
    print(f"{report.rows} rows in {options.out}, {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
