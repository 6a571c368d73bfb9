"""Results on disk: one npz with the arrays and one json that a person can read."""

import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .experiment import Experiment, Result


def key(experiment: Experiment, config: Any) -> str:
    """Names a run: the same for the same experiment, configuration and revision, else different.

    Example:
        >>> from attn_theory.papers import find
        >>> import dataclasses
        >>> e = find("icl_linear.estimators")
        >>> key(e, e.config) == key(e, dataclasses.replace(e.config, d=7))
        False
    """
    text = json.dumps(experiment.identity(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def path(folder: Path, experiment: Experiment, config: Any) -> Path:
    """Where a result lies, without its suffix."""
    name = experiment.name.partition(".")[2]
    return Path(folder) / experiment.paper / f"{name}-{key(experiment, config)}"


def new(experiment: Experiment, config: Any) -> Result:
    """An empty result."""
    versions = {name: version(name) for name in ("attn-theory", "core-attn", "torch", "numpy")}
    versions["python"] = platform.python_version()
    total = len(experiment.points(config))
    return Result(experiment.name, config, key(experiment, config), [], total, 0.0, versions)


def save(result: Result, stem: Path) -> None:
    """Writes `<stem>.npz` and `<stem>.json`, each in one move, so that neither is half there."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{i:03d}/{name}": np.asarray(value)
        for i, part in enumerate(result.parts)
        for name, value in part.items()
    }
    summary = {
        "experiment": result.experiment,
        "key": result.key,
        "config": vars(result.config),
        "seeds": list(result.config.streams),
        "points": f"{len(result.parts)} of {result.total}",
        "complete": result.complete,
        "seconds": round(result.seconds, 2),
        "versions": result.versions,
        "arrays": {name: _readable(value) for name, value in arrays.items()},
    }
    temporary = stem.with_name(f"{stem.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(temporary, stem.with_name(stem.name + ".npz"))
    temporary.write_text(json.dumps(summary, indent=1, default=str) + "\n")
    os.replace(temporary, stem.with_name(stem.name + ".json"))


def load(experiment: Experiment, config: Any, stem: Path) -> Result:
    """Reads what was measured with exactly this configuration; an empty result if nothing was."""
    result = new(experiment, config)
    data, summary = stem.with_name(stem.name + ".npz"), stem.with_name(stem.name + ".json")
    if not (data.is_file() and summary.is_file()):
        return result
    facts = json.loads(summary.read_text())
    if facts["key"] != result.key:
        return result
    parts: dict[str, dict[str, Any]] = {}
    with np.load(data) as arrays:
        for name in arrays.files:
            index, _, array = name.partition("/")
            parts.setdefault(index, {})[array] = arrays[name]
    result.parts = [parts[index] for index in sorted(parts)]
    result.seconds, result.versions = facts["seconds"], facts["versions"]
    return result


def _readable(value: np.ndarray) -> Any:
    """The values where there are few, else the shape."""
    return value.tolist() if value.size <= 64 else f"array of shape {value.shape}"
