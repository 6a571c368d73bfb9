"""The command attn-speech."""

import re
import sys
from collections.abc import Sequence

import core_attn.cli

from .speaking import predict, say


def main(argv: Sequence[str] | None = None) -> int:
    """Runs attn-speech and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["say"]:
        words = ["say", *spelled_out(words[1:])]
    commands = {"say": say, "predict": predict, "bench": bench}
    return core_attn.cli.main("attn_speech", words, commands=commands)


def bench(name: str = "tts_tiny", frames: int = 200, threads: int = 1, repeats: int = 3) -> None:
    """Measure decoding: kept keys and values against none, eight texts at once against one.

    Args:
        name: of a model.
        frames: that are decoded.
        threads: of torch.
        repeats: of which the median is taken.
    """
    from .bench import bench as run  # imports torch, which the others can spare

    run(name, frames, threads, repeats)


def spelled_out(words: Sequence[str]) -> list[str]:
    """The words of `say` with the text and the output under their flags.

    Example:
        >>> spelled_out(["Hi there.", "-o", "hi.wav", "--seed=3"])
        ['--output', 'hi.wav', '--seed=3', '--text=Hi there.']
        >>> spelled_out(["-5 °C", "--seed", "3"])
        ['--seed', '3', '--text=-5 °C']
    """
    flags: list[str] = []
    text: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in ("-h", "--help"):
            flags.append(word)
        elif word == "--":
            text += rest
        elif re.fullmatch(r"-o|--[a-z]\w*(?:=.*)?", word, re.DOTALL):
            flags.append("--output" if word == "-o" else word)
            if "=" not in word and (value := next(rest, None)) is not None:
                flags.append(value)
        elif word == "-":
            flags += ["--input", word]
        else:
            text.append(word)
    return [*flags, f"--text={' '.join(text)}"] if text else flags


if __name__ == "__main__":
    sys.exit(main())
