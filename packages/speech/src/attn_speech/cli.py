"""The command attn-speech."""

import sys
from collections.abc import Sequence

import core_attn.cli

from .speaking import predict, say


def main(argv: Sequence[str] | None = None) -> int:
    """Runs attn-speech and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["say"]:
        words = ["say", *spelled_out(words[1:])]
    return core_attn.cli.main("attn_speech", words, commands={"say": say, "predict": predict})


def spelled_out(words: Sequence[str]) -> list[str]:
    """The words of `say` with the text and the output under their flags.

    Example:
        >>> spelled_out(["Hi there.", "-o", "hi.wav", "--seed=3"])
        ['--text', 'Hi there.', '--output', 'hi.wav', '--seed=3']
    """
    flags: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in ("-h", "--help"):
            flags.append(word)
        elif word.startswith("-") and word != "-":
            flags.append("--output" if word == "-o" else word)
            if "=" not in word and (value := next(rest, None)) is not None:
                flags.append(value)
        else:
            flags += ["--input" if word == "-" else "--text", word]
    return flags


if __name__ == "__main__":
    sys.exit(main())
