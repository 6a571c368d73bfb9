"""Training as the domain packages share it, on pytorch-lightning.

A domain package named `attn_x` has `attn_x.tasks` (subclasses of `Task`), `attn_x.data`
(LightningDataModules whose loaders are made by `loader`), a folder `recipes` of YAML files, and

    def main() -> int:
        return core_attn.cli.main("attn_x", commands={"bench": bench})

which gives `attn-x fit | validate | test | predict | recipes | report | export | bench`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import Opened, Trained, opened, trained
    from .data import Stream, StreamLoader, data_folder, loader
    from .exhibit import Exhibit
    from .task import Task

__all__ = [
    "Task",
    "Exhibit",
    "loader",
    "Stream",
    "StreamLoader",
    "data_folder",
    "Opened",
    "opened",
    "Trained",
    "trained",
]

# Lightning takes seconds to import; `recipes`, `--help` and a misspelt recipe need not wait.
_LAZY = {
    "Task": "task",
    "Exhibit": "exhibit",
    "loader": "data",
    "Stream": "data",
    "StreamLoader": "data",
    "data_folder": "data",
    "Opened": "checkpoint",
    "opened": "checkpoint",
    "Trained": "checkpoint",
    "trained": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
