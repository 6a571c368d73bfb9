"""The command `attn-vision`."""

import sys

from core_attn.cli import main as run

from .analyze.command import analyze


def bench(threads: int = 1, seconds: float = 20.0) -> None:
    """Compare the speed of DeiT here and in timm; above 1 we are faster.

    Args:
        threads: of torch.
        seconds: for each measurement.
    """
    from .bench import bench as run_bench  # imports torch and timm, which the others can spare

    run_bench(threads, seconds)


def main() -> None:
    """Runs the command line of the package and exits with its code."""
    sys.exit(run("attn_vision", commands={"analyze": analyze, "bench": bench}))
