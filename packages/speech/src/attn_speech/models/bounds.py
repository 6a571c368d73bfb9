"""Checks of configurations."""

from collections.abc import Collection


def require_at_least(least: int, config: object, names: str) -> None:
    """Requires fields to be that large.

    Raises:
        ValueError: one is smaller.
    """
    for name in names.split():
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")


def require_one_of(allowed: Collection[str], config: object, name: str) -> None:
    """Requires a field to have one of some values.

    Raises:
        ValueError: it has another.
    """
    if getattr(config, name) not in allowed:
        raise ValueError(
            f"{name} must be one of {', '.join(allowed)}, got {getattr(config, name)!r}"
        )
