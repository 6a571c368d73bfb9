"""Click models on core-attn: AutoInt, its baselines, their data and their training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .layout import Layout
    from .models import VARIANTS, AutoInt, AutoIntConfig, create
    from .optim import make_optimizer
    from .schema import Field, Schema
    from .scoring import Scorer

__all__ = [
    "Layout",
    "VARIANTS",
    "AutoInt",
    "AutoIntConfig",
    "create",
    "make_optimizer",
    "Field",
    "Schema",
    "Scorer",
]

# torch takes a second or more to import; the command's help and its lists need not wait for it.
_LAZY = {
    "Layout": "layout",
    "VARIANTS": "models",
    "AutoInt": "models",
    "AutoIntConfig": "models",
    "create": "models",
    "make_optimizer": "optim",
    "Field": "schema",
    "Schema": "schema",
    "Scorer": "scoring",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
