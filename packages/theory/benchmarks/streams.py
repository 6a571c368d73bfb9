"""How far the numbers of checks spread over streams of random numbers, in units of tolerances."""

import argparse
import dataclasses

import numpy as np

from attn_theory import runner
from attn_theory.papers import select
from core_attn.testing.timing import table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("experiments", nargs="?", default="all")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--runs", default="runs/theory")
    options = parser.parse_args()
    rows = []
    for experiment in select(options.experiments):
        base = experiment.config if options.full else experiment.quick
        if not hasattr(base, "base_seed"):
            continue
        seen: dict[str, list] = {}
        for seed in range(options.streams):
            config = dataclasses.replace(base, base_seed=seed)
            result = runner.run(experiment, config, folder=options.runs)
            for check in experiment.checks(result):
                seen.setdefault(check.name, []).append(check)
        for name, checks in seen.items():
            values = np.array([check.measured for check in checks])
            spread = float(values.std(ddof=1))
            if spread > 1e-12:
                tolerance = float(np.mean([check.tolerance for check in checks]))
                failed = sum(not check.passed for check in checks)
                rows.append((experiment.name, name, f"{values.mean():.5g}", f"{spread:.2g}",
                             f"{tolerance / spread:.1f}" if tolerance else "bound",
                             f"{failed} of {len(checks)}"))  # fmt: skip
    print(table(("experiment", "check", "mean", "spread", "tolerance / spread", "failed"), rows))


if __name__ == "__main__":
    main()
