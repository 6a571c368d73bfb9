"""Changes of a configuration that come as plain data, from a recipe or a checkpoint."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from jsonargparse import ArgumentParser

from core_attn.variants import variant

from .models import VARIANTS


def configured(name: str, settings: Mapping[str, Any]) -> Any:
    """The configuration of a variant with settings of plain types, checked against its own.

    Raises:
        ValueError: no variant or setting has that name, or a value is of another type.

    Example:
        >>> configured("grassmann", {"offsets": [1, 3]}).offsets
        (1, 3)
        >>> configured("encoder_classifier", {"trunk": {"depth": 3}}).trunk.depth
        3
    """
    base: Any = variant(VARIANTS, name)
    variant(VARIANTS, name, **{key: getattr(base, key, None) for key in settings})  # the names
    given = {key: value for key, value in settings.items() if key != "trunk"}
    changes = _typed(name, type(base), given)
    if "trunk" in settings:
        if not isinstance(settings["trunk"], Mapping):
            raise ValueError(f"settings of {name}: trunk must be settings, got {settings['trunk']}")
        inner = _typed(f"the trunk of {name}", type(base.trunk), settings["trunk"])
        changes["trunk"] = replace(base.trunk, **inner)
    return variant(VARIANTS, name, **changes)


def _typed(name: str, kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, fail_untyped=False, skip={"trunk"})
    try:
        typed = parser.parse_object(dict(given))
    except Exception as error:  # the parser's errors have no common class
        raise ValueError(f"settings of {name}: {' '.join(str(error).split())}") from None
    return {key: typed[key] for key in given}


def plain(config: Any) -> dict[str, Any]:
    """The settings of a configuration as JSON can hold them."""
    return {
        field.name: _plain(getattr(config, field.name))
        for field in fields(config)
        if not is_dataclass(getattr(config, field.name))
    }


def name_of(config: Any) -> str:
    """A variant of the same class."""
    return next(name for name, known in VARIANTS.items() if type(known) is type(config))


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
