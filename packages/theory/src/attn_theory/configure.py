"""Configurations from words: key=value, read by the field's type, bounded by the glossary."""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

from .experiment import Experiment
from .glossary import quantities


def configured(
    experiment: Experiment,
    changes: Sequence[str] = (),
    *,
    quick: bool = False,
    **given: Any,
) -> Any:
    """The experiment's configuration with changes.

    Args:
        experiment: whose.
        changes: each key=value; several values of a field are separated by commas.
        quick: whether the small form is changed, not the full run.
        given: further fields, as values; None leaves a field alone.

    Raises:
        ValueError: a field that the experiment lacks, a value of the wrong type or out of range.

    Example:
        >>> from attn_theory.papers import find
        >>> configured(find("icl_linear.heads"), ["heads=2,4", "noise=0.5"]).heads
        (2, 4)
    """
    config = base(experiment, quick)
    values = {}
    for item in changes:
        name, text = split(item, experiment)
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = parse(text, typing.get_type_hints(type(config))[name], name)
    for name, value in given.items():
        if value is not None:
            check_name(name, experiment)
            if name in values:
                raise ValueError(f"{name} is given twice")
            values[name] = value
    return dataclasses.replace(config, **values)


def typed(experiment: Experiment, values: dict[str, Any]) -> dict[str, Any]:
    """Values of Python as the fields have them: lists as tuples, integers as floats.

    Raises:
        ValueError: a field that the experiment lacks.
        TypeError: a value of another type.

    Example:
        >>> from attn_theory.papers import find
        >>> typed(find("icl_linear.heads"), {"heads": [1, 2], "noise": 1})
        {'heads': (1, 2), 'noise': 1.0}
    """
    types, out = typing.get_type_hints(type(experiment.config)), {}
    for name, value in values.items():
        check_name(name, experiment)
        kind = types[name]
        several = typing.get_origin(kind) is tuple
        one = typing.get_args(kind)[0] if several else kind
        many = tuple(value) if several and not isinstance(value, str | int | float) else (value,)
        wanted = int | float if one is float else one
        if not all(isinstance(x, wanted) and not isinstance(x, bool) for x in many):
            raise TypeError(f"{name} must be {one.__name__}, got {value!r}")
        many = tuple(one(x) for x in many)
        out[name] = many if several else many[0]
    return out


def base(experiment: Experiment, quick: bool) -> Any:
    """The full configuration, or the quick one.

    Raises:
        ValueError: there is no quick one.
    """
    if quick and experiment.quick is None:
        raise ValueError(f"{experiment.name} has no quick form; run it without --quick")
    return experiment.quick if quick else experiment.config


def split(item: str, experiment: Experiment) -> tuple[str, str]:
    """The key and the value of key=value.

    Raises:
        ValueError: it is not of that form, or the experiment has no such field.
    """
    name, equals, text = item.partition("=")
    if not equals or not text:
        allowed = ", ".join(f.name for f in dataclasses.fields(experiment.config))
        raise ValueError(f"{item!r} is not key=value with a key of {experiment.name}: {allowed}")
    check_name(name, experiment)
    return name, text


WITHOUT = {
    "seeds": "it has no repetitions",
    "device": "it does not compute with torch",
    "base_seed": "it draws no random numbers",
}


def check_name(name: str, experiment: Experiment) -> None:
    """Refuses a field that the experiment lacks, with the reason or the fields it has."""
    names = [field.name for field in dataclasses.fields(experiment.config)]
    if name not in names:
        why = WITHOUT.get(name, f"there are {', '.join(names)}")
        raise ValueError(f"{experiment.name} takes no {name}: {why}")


def parse(text: str, kind: Any, name: str = "value") -> Any:
    """Reads a value of a configuration; several are separated by commas.

    Raises:
        ValueError: it is not of that kind.

    Example:
        >>> parse("1,2", tuple[int, ...])
        (1, 2)
    """
    if typing.get_origin(kind) is tuple:
        return tuple(parse(part, typing.get_args(kind)[0], name) for part in text.split(","))
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, got {text!r}")
        return text == "true"
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{name} must be {kind.__name__}, got {text!r}") from error


def parameters(config: Any, paper: str) -> list[tuple[str, ...]]:
    """A row per field: name, type, value, symbol, unit, what is allowed, meaning.

    Example:
        >>> from attn_theory.papers import find
        >>> rows = parameters(find("icl_linear.heads").config, "icl_linear")
        >>> [row[:3] + row[4:6] for row in rows if row[0] == "noise"]
        [('noise', 'float', '0.1', 'label²', 'at least 0')]
    """
    known, rows = quantities(paper), []
    types = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        kind, value = types[field.name], getattr(config, field.name)
        many = typing.get_origin(kind) is tuple
        word = f"{typing.get_args(kind)[0].__name__}, several" if many else kind.__name__
        text = ",".join(f"{x:g}" for x in value) if many else str(value)
        about = known[field.name]
        allowed = "" if kind is str else str(about.allowed)
        rows.append((field.name, word, text, about.symbol, about.unit, allowed, about.meaning))
    return rows
