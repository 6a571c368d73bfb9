"""What the commands share: reading a structure, writing results."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

NOT_CONVERGED = 3


def read_structure(path: str) -> Atoms:
    """The last structure in a file of any kind ASE reads.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: ASE cannot read it.
    """
    return read_structures(path)[-1]


def read_structures(path: str) -> list[Atoms]:
    """All structures in a file of any kind ASE reads.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: ASE cannot read it, or there is none in it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"--input {path}: no such file")
    try:
        found = ase.io.read(path, ":")
    except Exception as error:  # ASE's readers raise whatever their format's parser does
        said = str(error) or type(error).__name__
        raise ValueError(f"--input {path}: ASE cannot read it: {said}") from error
    structures = [found] if isinstance(found, Atoms) else list(found)
    if not structures or not all(len(atoms) for atoms in structures):
        raise ValueError(f"--input {path}: there are no atoms in it")
    return structures


def results_folder(out: str | None, source: str, command: str) -> Path:
    """The folder for results: `out`, or one named after the input and the command."""
    folder = Path(out) if out else Path(f"{Path(source).name.split('.')[0]}-{command}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def frozen(atoms: Atoms) -> Atoms:
    """A copy with the results of its calculator, for a file."""
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy, **_plain(atoms))
    return copy


def _plain(atoms: Atoms) -> dict[str, Any]:
    assert atoms.calc is not None
    kept = ("energy", "free_energy", "energies", "forces", "stress")
    atoms.get_forces()
    return {name: x for name, x in atoms.calc.results.items() if name in kept}


def write_structures(path: Path, structures: Iterable[Atoms]) -> None:
    """Writes extxyz."""
    ase.io.write(str(path), list(structures), format="extxyz")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes summary.json and prints it, one line a number."""
    (folder / "summary.json").write_text(json.dumps(summary, indent=2, default=_json) + "\n")
    for name, value in summary.items():
        if isinstance(value, (int, float, str, bool)):
            shown = f"{value:.6g}" if isinstance(value, float) else value
            print(f"{name}: {shown}")
    print(f"results: {folder}", flush=True)


def _json(value: Any) -> Any:
    return np.asarray(value).tolist()


def new_figure(columns: int = 1, height: float = 3.2):
    """A figure and its axes side by side, without frames."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.2)
    return figure, axes
