"""What to write instead, added to what the parser says is wrong."""

import inspect
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module


def with_hint(message: str, flags: Iterable[str], classes: Mapping[str, Iterable[type]]) -> str:
    """Appends the names nearest to the one that is wrong, or all there are.

    Args:
        message: the parser's, in one line.
        flags: those of the command.
        classes: for a parser key, as "model", the classes that can be named there.

    Example:
        >>> with_hint("unrecognized arguments: --widht", ["--width", "--depth"], {})
        'unrecognized arguments: --widht; nearest: --width'
    """
    if found := re.search(r"unrecognized arguments: (--[^\s=]+)", message):
        return message + _nearest(found[1], flags)
    if found := re.search(r"does not accept option '(.+)'", message):
        return message + _nearest(found[1], (flag.removeprefix("--") for flag in flags))
    if found := re.search(r"(\S+)\.(\w+): option '(\w+)' is not accepted", message):
        accepted = inspect.signature(getattr(import_module(found[1]), found[2])).parameters
        return message + _nearest(found[3], accepted)
    if found := re.search(r"^(\S+):.*is abstract, got (?:\w+\.)*(\w+)", message):
        key, wrong = found.groups()
        names = [kind.__name__ for kind in classes.get(key, ()) if not inspect.isabstract(kind)]
        return f"{key}: {wrong} is abstract; there are {', '.join(names)}"
    if found := re.search(r"^(\S+):.*(?:expected|or) dot import path string: (\w+)", message):
        key, wrong = found.groups()
        names = [kind.__name__ for kind in classes.get(key, ()) if not inspect.isabstract(kind)]
        return f"{key}: no class {wrong!r}" + _nearest(wrong, names)
    return message


def _nearest(wrong: str, names: Iterable[str]) -> str:
    names = list(names)
    near = get_close_matches(wrong, names, n=3)
    if near:
        return f"; nearest: {', '.join(near)}"
    return f"; there are {', '.join(names)}" if 0 < len(names) <= 30 else ""
