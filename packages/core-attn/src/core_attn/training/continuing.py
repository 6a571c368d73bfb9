"""A checkpoint's own configuration under the flags of the command that names it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .checkpoint import read_checkpoint
from .runs import find_checkpoint

CONFIG = ("--config", "-c")


def with_stored_config(recipe: str | None, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Recipe and words of a command, completed by what the checkpoint that it names was made with.

    `fit` continues as the run was started, with its flags; those of this command come on top. The
    run's own recipe adds nothing to them and is left out. The other commands do the same where no
    recipe is named.

    Args:
        recipe: the first one named, if any.
        words: the command and its flags, recipes as paths.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is not one of this program.
    """
    command, *flags = words
    which = _value(flags, "--ckpt_path")
    if which is None or (recipe is not None and command != "fit"):
        return recipe, [*words]
    path = which
    if which in ("last", "best"):
        path = str(find_checkpoint(_root(flags), recipe, which))
    content = read_checkpoint(path)
    if recipe not in (None, content["recipe"]):
        return recipe, [*words]
    config = json.dumps(_kept(command, content["config"]))
    return content["recipe"], [command, "--config", config, *_changed(flags, content, path)]


def _kept(command: str, config: Mapping[str, Any]) -> dict[str, Any]:
    if command == "fit":
        return {key: x for key, x in config.items() if key not in ("ckpt_path", "weights_only")}
    kept = {key: config[key] for key in ("model", "data", "seed_everything")}
    return kept | {"trainer": {"precision": config["trainer"]["precision"]}}


def _changed(flags: Sequence[str], content: Mapping[str, Any], path: str) -> list[str]:
    """The flags with the checkpoint's path, without the recipe that its configuration holds."""
    changed: list[str] = []
    for flag, value, words in _flags(flags):
        if flag == "--ckpt_path":
            changed += [flag, path]
        elif flag not in CONFIG or Path(value or "").stem != content["recipe"]:
            changed += words
    return changed


def _root(flags: Sequence[str]) -> Path:
    """The folder of all runs, as a flag or a recipe says."""
    root = _value(flags, "--trainer.default_root_dir")
    for flag, value, _ in _flags(flags):
        if root is None and flag in CONFIG and Path(value or "").is_file():
            content = yaml.safe_load(Path(str(value)).read_text("utf-8"))
            trainer = content.get("trainer") if isinstance(content, dict) else None
            root = (trainer or {}).get("default_root_dir")
    return Path(root or "runs")


def _value(flags: Sequence[str], name: str) -> str | None:
    return next((value for flag, value, _ in _flags(flags) if flag == name), None)


def _flags(words: Sequence[str]) -> list[tuple[str, str | None, list[str]]]:
    """Flags with their values, behind an equals sign or following, and as they were written."""
    flags: list[tuple[str, str | None, list[str]]] = []
    for word in words:
        flag, equals, value = word.partition("=")
        if word.startswith("-") and equals:
            flags.append((flag, value, [word]))
        elif flags and flags[-1][1] is None and not word.startswith("--"):
            name, _, written = flags.pop()
            flags.append((name, word, [*written, word]))
        else:
            flags.append((word, None, [word]))
    return flags
