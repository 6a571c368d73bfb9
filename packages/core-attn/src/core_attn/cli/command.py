"""The command of a domain package: finds what is asked for and says in one line what is wrong."""

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec
from inspect import signature
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from .errors import is_user_error, one_line, told_by

LIGHTNING = {
    "fit": "train a recipe, or continue with --ckpt_path last",
    "validate": "measure a checkpoint on the validation data",
    "test": "measure a checkpoint on the test data",
    "predict": "write a checkpoint's predictions beside it",
}
OF_A_CHECKPOINT = ("validate", "test", "predict", "report", "export", "analyze")
Command = Callable[..., object]


def main(
    package: str,
    argv: Sequence[str] | None = None,
    *,
    commands: Mapping[str, Command] = MappingProxyType({}),
) -> int:
    """Runs one command of a domain package and returns the exit code.

    Where the package has a module `tasks`, it gets `fit`, `validate`, `test`, `predict`,
    `recipes`, `report`, `export` and `analyze`; the classes in its modules `tasks` and `data` can
    be named without their path in recipes and flags.

    Args:
        package: the import name, as "attn_vision"; the command is called "attn-vision".
        argv: the words after the command's name; those of this process by default.
        commands: further ones, as "bench". Each is a function with typed arguments, which become
            flags, and a docstring, whose first line is the help.

    Returns:
        0, or 2 after an error of the user, told in one line (with `--traceback` or
        ATTN_TRACEBACK=1, in full), or 130 after Ctrl-C, 143 after SIGTERM.

    Example:
        >>> def bench(repeats: int = 3):
        ...     "Compare with the peers installed."
        ...     print("medians of", repeats)
        >>> main("core_attn", ["bench", "--repeats", "5"], commands={"bench": bench})
        medians of 5
        0
    """
    name = package.replace("_", "-")
    return exit_code(package, argv, lambda words: _run(package, name, words, commands))


def positional(*names: str) -> Callable[[Command], Command]:
    """Lets a command's arguments be given without their flags, in this order.

    A name that ends in "*" takes all words that are left, as a list.

    Example:
        >>> @positional("text")
        ... def say(text: str, seed: int = 0):
        ...     "Speak."
        ...     print(text, seed)
        >>> main("core_attn", ["say", "--seed", "3", "good morning"], commands={"say": say})
        good morning 3
        0
    """

    def mark(command: Command) -> Command:
        command.positional = names  # pyright: ignore[reportFunctionMemberAccess]
        return command

    return mark


def as_flags(
    words: Sequence[str], names: Sequence[str], switches: Collection[str] = ()
) -> list[str]:
    """Gives bare words their flags; each flag takes one value, which a switch need not be given.

    Raises:
        ValueError: more bare words than names.

    Example:
        >>> as_flags(["m.ckpt", "--seed", "3", "a.png", "b.png"], ["model", "images*"])
        ['--seed', '3', '--model', 'm.ckpt', '--images', '["a.png", "b.png"]']
        >>> as_flags(["--quiet", "m.ckpt"], ["model"], switches=["quiet"])
        ['--quiet', 'true', '--model', 'm.ckpt']
    """
    flags: list[str] = []
    bare: list[str] = []
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if not word.startswith("--") or word == "-":
            bare.append(word)
        elif word == "--help" or "=" in word:
            flags.append(word)
        elif word[2:] in switches and (not rest or rest[0].lower() not in ("true", "false")):
            flags += [word, "true"]
        else:
            flags += [word, *([rest.popleft()] if rest else [])]
    if not names:
        return flags + bare
    for name in names:
        if name.endswith("*"):
            flags += [f"--{name[:-1]}", json.dumps(bare)] if bare else []
            bare = []
        elif bare:
            flags += [f"--{name}", bare.pop(0)]
    if bare:
        raise ValueError(f"one word too many: {bare[0]!r}; it takes {', '.join(names)}")
    return flags


def exit_code(
    package: str, argv: Sequence[str] | None, run: Callable[[list[str]], int | None]
) -> int:
    """Runs a command line of one's own and returns its exit code, as `main` does for its commands.

    Args:
        package: the import name; an error raised on purpose there, or at a boundary of core_attn,
            is the user's and told in one line, any other keeps its traceback.
        argv: the words after the command's name; those of this process by default.
        run: what is done with them, without `--traceback`; None that it returns is 0.

    Example:
        >>> exit_code("core_attn", ["--depth", "3"], lambda words: len(words))
        2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    in_full = "--traceback" in words or bool(os.environ.get("ATTN_TRACEBACK"))
    words = [word for word in words if word != "--traceback"]
    try:
        return run(words) or 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:  # --help and --print_config end so
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:  # the outermost boundary: here it is decided who is told what
        told = told_by(error)
        if in_full or not is_user_error(told, package):
            raise
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"{package.replace('_', '-')}: {one_line(told)}", file=sys.stderr)
        return 2


def _run(package: str, name: str, words: list[str], commands: Mapping[str, Command]) -> int:
    trains = find_spec(f"{package}.tasks") is not None
    if trains:
        from ..training.analyze import analyze
        from ..training.export import export
        from ..training.report import report

        shared = {"recipes": lambda: _list(package), "report": report, "export": export}
        shared["analyze"] = analyze
        commands = shared | dict(commands)
    helps = (LIGHTNING if trains else {}) | {
        key: (command.__doc__ or "list what can be trained").splitlines()[0]
        for key, command in commands.items()
    }
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: {name} COMMAND [--help] [...]\n")
        for key, text in helps.items():
            print(f"  {key:<10} {text[0].lower() + text[1:].rstrip('.')}")
        return 0
    if words[0] not in helps:
        raise ValueError(f"no command {words[0]!r}; there are {', '.join(helps)}")
    if trains and words[0] in OF_A_CHECKPOINT:
        _require_checkpoint(words[1:])
    if words[0] in commands:
        from jsonargparse import auto_cli

        command = commands[words[0]]
        switches = [
            name for name, x in signature(command).parameters.items() if isinstance(x.default, bool)
        ]
        flags = as_flags(words[1:], getattr(command, "positional", ()), switches)
        code = auto_cli(
            command, args=flags, as_positional=False, prog=f"{name} {words[0]}",
            exit_on_error=False,
        )  # fmt: skip
        return code if isinstance(code, int) else 0
    from ..training.recipes import resolve_configs

    words, recipe = resolve_configs(package, words)
    from ..training.fit import run

    return run(package, name, recipe, words)


def _require_checkpoint(words: Sequence[str]) -> None:
    """Tells at once of a missing file, before what reads it is imported, which takes seconds."""
    for word, following in pairwise([*words, ""]):
        flag, _, value = word.partition("=")
        path = value or following
        named = flag in ("--ckpt", "--ckpt_path") and path and path not in ("last", "best")
        if named and not Path(path).is_file():
            raise FileNotFoundError(f"checkpoint {path}: no such file")


def _list(package: str) -> None:
    from ..training.recipes import description, recipe_files

    recipes = recipe_files(package)
    width = max(map(len, recipes), default=0)
    for recipe, path in recipes.items():
        print(f"{recipe:<{width}}  {description(path)}")
