"""Recipes: YAML files of a domain package, known by name."""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

import yaml


def recipe_files(package: str) -> dict[str, Path]:
    """The package's recipes by name, in alphabetical order."""
    folder = Path(str(files(package))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def description(path: Path) -> str:
    """The first line of the comment that a recipe begins with; empty if it has none."""
    first = path.read_text(encoding="utf-8").lstrip().partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def find_recipe(package: str, name: str) -> Path:
    """The file of a recipe given by name, or by path to a YAML file of one's own.

    Raises:
        FileNotFoundError: there is none; the message names the nearest ones.
    """
    recipes = recipe_files(package)
    if name in recipes:
        return recipes[name]
    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json") or "/" in name:
        if path.is_file():
            return path
        raise FileNotFoundError(f"--config {name}: no such file")
    near = get_close_matches(name, recipes, n=3, cutoff=0.5)
    hint = f"nearest: {', '.join(near)}" if near else f"available: {', '.join(recipes) or 'none'}"
    raise FileNotFoundError(f"--config {name}: no such recipe in {package}; {hint}")


def resolve_configs(package: str, argv: Sequence[str]) -> tuple[list[str], str | None]:
    """Replaces the recipes in `argv` by their files; also returns the first one's name.

    They come right after the command: flags, wherever they stand, change what recipes say.

    Raises:
        FileNotFoundError: as in `find_recipe`.
        ValueError: a file is not YAML; the message says where.
    """
    recipes, rest, first = [], [], None
    follows = False
    for word in argv:
        flag, equals, value = word.partition("=")
        if follows or (flag in ("--config", "-c") and equals):
            path = find_recipe(package, word if follows else value)
            _check_syntax(path)
            first = first or path.stem
            recipes.append(str(path) if follows else f"{flag}={path}")
            follows = False
            continue
        follows = word in ("--config", "-c")
        (recipes if follows else rest).append(word)
    return [*rest[:1], *recipes, *rest[1:]], first


def _check_syntax(path: Path) -> None:
    try:
        with path.open(encoding="utf-8") as file:
            yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from None
