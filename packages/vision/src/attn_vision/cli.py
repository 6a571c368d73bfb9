"""The command `attn-vision`."""

import sys

from core_attn.training import main as run


def main() -> None:
    """Runs the command line of the package and exits with its code."""
    sys.exit(run("attn_vision"))
