import sys

from core_attn.cli import main


def bench(repeats: int = 3):
    """Compare with nothing."""
    print("repeats", repeats)


if __name__ == "__main__":
    sys.exit(main("attn_tiny", commands={"bench": bench}))
