"""Errors of the user in one line; errors of the program with their traceback."""

import dis
import errno
import re
from argparse import ArgumentError
from types import TracebackType

RAISED_AT_BOUNDARIES = (
    ValueError, TypeError, NotImplementedError, OSError, ImportError, ArgumentError,
)  # fmt: skip
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TRAINER = ("pytorch_lightning", "lightning_fabric", "jsonargparse")
# Constructors that get the numbers of flags as they are: rates, probabilities, workers.
GIVEN_NUMBERS = ("torch.optim", "torch.utils.data", "torch.nn.modules.dropout")
# No flag reaches these directly: what they refuse, a program has asked of them.
INNER = ("core_attn.ops", "core_attn.layers", "core_attn.taps", "core_attn.native")


def is_user_error(error: BaseException, package: str) -> bool:
    """Whether the message of `error` is enough: what was given is at fault, not the code.

    That is so for files, for flags, and for a ValueError or TypeError raised on purpose by the
    domain's package, by the trainer, or at a boundary of core_attn or torch that flags reach. One
    that comes out of an operation gone wrong, or that an operator raises about its arguments, is a
    bug.
    """
    if isinstance(error, ArgumentError) or type(error).__name__ == "MisconfigurationException":
        return True
    if isinstance(error, OSError):
        if error.filename is not None or error.errno in NO_ROOM:
            return True
        return _raised_by(error.__traceback__, package)
    return isinstance(error, RAISED_AT_BOUNDARIES) and _raised_by(error.__traceback__, package)


def told_by(error: BaseException) -> BaseException:
    """The error of the class being built, where the parser has wrapped it in one of its own."""
    while (
        error.__cause__ is not None
        and not isinstance(error, ArgumentError)
        and _top(_raised_in(error.__traceback__)[0]) == "jsonargparse"
    ):
        error = error.__cause__
    return error


def one_line(error: BaseException) -> str:
    """The message of `error` in one line, without the parser's talk of types."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return f"{str(error.strerror).lower()}, while something was written"
    text = str(error.message if isinstance(error, ArgumentError) else error)
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    text = " ".join(line for line in lines if line and not _NOISE.match(line))
    for pattern, short in _SHORTER:
        text = re.sub(pattern, short, text)
    return text or type(error).__name__


_NOISE = re.compile(
    r"Does not validate against any of the Union|Subtypes: |Errors:$|Given value type: |"
    r"Expected a <class 'NoneType'>|Given value: (NestedArg|[\[{])|Expected a path but"
)
_SHORTER = (
    (r"<class '(?:\w+\.)*(\w+)'>", r"\1"),
    (r'Parser key "([\w.]+)":', r"\1:"),
    (r"Problem with given class_path '([\w.]+)':", r"\1:"),
    (r"\.? (?:Got|Given) value: (.*)", r", got \1"),
    (r": Expected an? ", ": expected "),
    (r" Expected an? ", " or "),
    (r": Option ", ": option "),
    (r"typing\.Literal\[(.*?)\]", r"one of \1"),
)


def _raised_by(traceback: TracebackType | None, package: str) -> bool:
    """Whether it was a `raise` statement in core_attn or in `package`."""
    module, on_purpose = _raised_in(traceback)
    if not on_purpose or module.startswith(INNER):
        return False
    known = _top(module) in ("core_attn", package, *TRAINER)
    return known or module.startswith(GIVEN_NUMBERS)


def _raised_in(traceback: TracebackType | None) -> tuple[str, bool]:
    """The module of the innermost frame, and whether a `raise` statement stands there."""
    if traceback is None:
        return "", False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    frame = traceback.tb_frame
    opcode = dis.opname[frame.f_code.co_code[traceback.tb_lasti]]
    return frame.f_globals.get("__name__", ""), opcode == "RAISE_VARARGS"


def _top(module: str) -> str:
    return module.partition(".")[0]
