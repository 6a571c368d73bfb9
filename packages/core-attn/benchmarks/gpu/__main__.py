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
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from . import stages
from .operators import OPERATORS
from .rivals import NAMES
from .stages import Case
from .worker import Worker

SHARES = {"1": 0.25, "2": 0.2, "3": 0.45, "4": 0.1}  # of the time; what is left over goes on
PATIENCE = 40.0  # seconds for one case, compilation included
DTYPES = ("bfloat16", "float16", "float32")
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
        command += ["-n", str(min(8, os.cpu_count() or 1))]  # compiling is most of it
    environment = os.environ | ({"TRITON_INTERPRET": "1"} if dry else {})
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd=TESTS.parents[1],
    )  # fmt: skip
    output = process.stdout
    if output is None:
        raise RuntimeError("pytest has no output")
    os.set_blocking(output.fileno(), False)
    pending = ""
    while process.poll() is None or pending:
        pending += output.read() or ""
        *lines, pending = (
            pending.split("\n") if process.poll() is None else [*pending.split("\n"), ""]
        )
        for line in lines:
            named = re.search(r"(tests/\S+::\S+(?: \S+)*?)(?= (?:PASSED|FAILED)| - |$)", line)
            outcome = re.search(r"\b(PASSED|FAILED|ERROR)\b", line)
            if outcome and named and not line.startswith(("FAILED", "ERROR")):
                report.add(stage=1, test=named[1], outcome=outcome[1].lower())
            elif line.startswith(("FAILED", "ERROR", "SKIPPED", "E   ")) or " in " in line[-20:]:
                report.add(stage=1, pytest=line.strip("= "))
        if time.monotonic() > deadline and process.poll() is None:
            process.kill()
            report.add(stage=1, error="out of time; the other tests were not run")
        time.sleep(0.1)
    process.wait()


def error_cases(dry: bool) -> Iterator[Case]:
    """Stage 2. The head dims of every feature first, since the cheap ones tell most."""
    for name, subject in OPERATORS.items():
        for shape in subject.checked[: 1 if dry else None]:
            for dtype in ("float32",) if dry else DTYPES:
                if dtype == "float32" and shape[-1] > 64:
                    continue  # no kernel takes these
                for feature in subject.features:
                    yield Case(name, feature, dtype, shape)


def timing_cases() -> Iterator[Case]:
    """Stage 3: ours and SDPA's first, the slow compilations of FlexAttention last."""
    for rivals in (NAMES[:-1], NAMES[-1:]):
        for dtype in ("bfloat16", "float16", "float32"):
            for name, subject in OPERATORS.items():
                timed = subject.timed if dtype == "bfloat16" else subject.timed[:1]
                for shape, feature in timed:
                    yield from (Case(name, feature, dtype, shape, rival) for rival in rivals)


def sweep_cases() -> Iterator[Case]:
    """Stage 4: the table's tiles, then others."""
    for shape in ((4, 16, 2048, 64), (4, 16, 2048, 128)):
        for tiles in (None, *stages.SWEEP):
            yield Case("attention", "plain", "bfloat16", shape, tiles=tiles and tuple(tiles))


def run_cases(
    report: Report, worker: Worker, stage: int, cases: Iterator[Case], deadline: float
) -> None:
    """Measures the cases until the time is over."""
    function = {2: stages.errors, 3: stages.timings, 4: stages.sweep}[stage]
    wanted = list(cases)
    for done, case in enumerate(wanted):
        left = deadline - time.monotonic()
        if left <= 0:
            report.add(stage=stage, error=f"out of time, {len(wanted) - done} cases not measured")
            return
        result = worker.run(function, case, seconds=min(PATIENCE, left + 5))
        report.add(stage=stage, **case._asdict(), **result)


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
    start, worker = time.monotonic(), Worker()
    share, total = 0.0, sum(SHARES[stage] for stage in options.stages)
    with options.out.open("a") as file:
        report = Report(file)
        report.add(stage=0, **worker.run(stages.machine, seconds=120))
        for stage in sorted(options.stages):
            share += SHARES[stage] / total
            deadline = start + 60 * options.minutes * share
            if stage == "1":
                run_tests(report, deadline, options.dry)
            elif stage == "2":
                run_cases(report, worker, 2, error_cases(options.dry), deadline)
            elif options.dry:
                report.add(stage=int(stage), error="torch sees no GPU: nothing to time")
            else:
                cases = timing_cases() if stage == "3" else sweep_cases()
                run_cases(report, worker, int(stage), cases, deadline)
    worker.stop()
    print(f"{report.rows} rows in {options.out}, {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
