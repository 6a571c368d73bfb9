"""The command `attn-molecular`."""

import sys

from core_attn.cli import main as run


def main() -> None:
    """Runs the command line of the package and exits with its code."""
    from .commands import COMMANDS  # imports ASE's parts, which others can spare

    sys.exit(run("attn_molecular", commands=COMMANDS))
