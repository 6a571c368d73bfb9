"""What a user should know though nothing is wrong."""

import sys


def note(line: str) -> None:
    """Says it on standard error.

    Example:
        >>> note("field price: one cell in two is empty")
    """
    print(f"note: {line}", file=sys.stderr, flush=True)
