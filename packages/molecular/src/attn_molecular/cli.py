"""The command `attn-molecular`."""

import sys

from core_attn.cli import main as run


def main() -> None:
    """Runs the command line of the package and exits with its code."""
    sys.exit(run("attn_molecular"))
