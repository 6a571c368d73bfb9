"""The command attn-speech."""

import sys

import core_attn.cli


def main() -> int:
    """Runs attn-speech and returns its exit code."""
    return core_attn.cli.main("attn_speech")


if __name__ == "__main__":
    sys.exit(main())
