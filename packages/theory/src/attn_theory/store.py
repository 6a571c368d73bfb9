"""Results on disk: one npz with the arrays and one json that a person can read.

A complete result is `<name>-<key>.npz` and `.json`; what an interrupted run has measured lies in
the same two files with `.part` in their names, so that a failed run leaves no result.
"""

import hashlib
import json
import os
import platform
import zipfile
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .experiment import Experiment, Result

PACKAGES = ("attn-theory", "core-attn", "torch", "numpy")


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """The packages that compute, with their versions.

    Example:
        >>> sorted(versions())
        ['attn-theory', 'core-attn', 'numpy', 'python', 'torch']
    """
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def key(experiment: Experiment, config: Any) -> str:
    """Names a run: the same for the same experiment, configuration, revision, torch and numpy.

    Example:
        >>> from attn_theory.papers import find
        >>> import dataclasses
        >>> e = find("icl_linear.estimators")
        >>> key(e, e.config) == key(e, dataclasses.replace(e.config, d=7))
        False
    """
    made_of = {name: versions()[name] for name in ("torch", "numpy")}
    facts = experiment.identity(config) | {"versions": made_of}
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def path(folder: Path, experiment: Experiment, config: Any) -> Path:
    """Where a result lies, without its suffix."""
    return Path(folder) / experiment.paper / f"{experiment.entry.short}-{key(experiment, config)}"


def new(experiment: Experiment, config: Any) -> Result:
    """An empty result."""
    total = len(experiment.points(config))
    made_by = dict(versions())
    return Result(experiment.name, config, key(experiment, config), [], total, 0.0, made_by)


def save(result: Result, stem: Path) -> None:
    """Writes both files, each in one move, so that neither is half there."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{i:03d}/{name}": np.asarray(value)
        for i, part in enumerate(result.parts)
        for name, value in part.items()
    }
    summary = {
        "experiment": result.experiment,
        "key": result.key,
        "config": asdict(result.config),
        "points": f"{len(result.parts)} of {result.total}",
        "complete": result.complete,
        "seconds": round(result.seconds, 2),
        "versions": result.versions,
        "arrays": {name: _readable(value) for name, value in arrays.items()},
    }
    data, facts = _files(stem, result.complete)
    temporary = stem.with_name(f"{stem.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(temporary, data)
    temporary.write_text(json.dumps(summary, indent=1, default=str) + "\n")
    os.replace(temporary, facts)
    if result.complete:
        for part in _files(stem, False):
            part.unlink(missing_ok=True)


def load(experiment: Experiment, config: Any, stem: Path) -> Result:
    """Reads what was measured with exactly this configuration; an empty result if nothing was.

    Raises:
        ValueError: a file that cannot be read as what `save` wrote.
    """
    result = new(experiment, config)
    for complete in (True, False):
        data, summary = _files(stem, complete)
        if not (data.is_file() and summary.is_file()):
            continue
        try:
            facts = json.loads(summary.read_text())
            parts: dict[str, dict[str, Any]] = {}
            with np.load(data) as arrays:
                for name in arrays.files:
                    index, _, array = name.partition("/")
                    parts.setdefault(index, {})[array] = arrays[name]
            result.seconds, result.versions = float(facts["seconds"]), dict(facts["versions"])
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{data} or the json beside it is damaged ({type(error).__name__}); delete both to "
                "measure anew"
            ) from error
        result.parts = [parts[index] for index in sorted(parts)]
        if complete != result.complete:
            raise ValueError(
                f"{data} has {len(result.parts)} of {result.total} points, which is damage; delete "
                "it to measure anew"
            )
        break
    return result


def _files(stem: Path, complete: bool) -> tuple[Path, Path]:
    middle = "" if complete else ".part"
    return stem.with_name(f"{stem.name}{middle}.npz"), stem.with_name(f"{stem.name}{middle}.json")


def _readable(value: np.ndarray) -> Any:
    """The values where there are few, else the shape."""
    return value.tolist() if value.size <= 64 else f"array of shape {value.shape}"
