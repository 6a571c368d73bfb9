"""The command of a package: `main`, and the one place that tells the user's errors from bugs."""

from .command import exit_code, main, positional

__all__ = ["main", "exit_code", "positional"]
