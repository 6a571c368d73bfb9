"""Predictions for the structures of a file."""

from typing import Literal

import numpy as np

from ..prediction import predict as run
from .folder import (
    new_figure,
    read_structures,
    results_folder,
    write_structures,
    write_summary,
    write_table,
)


def predict(
    input: str,
    model: str | None = None,
    batch_atoms: int = 1000,
    out: str | None = None,
    device: str = "cpu",
    dtype: Literal["float32", "float64"] = "float32",
) -> int:
    """Predict energy, forces and stress of every structure in a file.

    Args:
        input: file with structures, of any kind ASE reads.
        model: potential; a shipped name or a file.
        batch_atoms: the most atoms in a pass of the network.
        out: folder for predicted.extxyz, predicted.csv, predict.png, summary.json.
        device: of the network.
        dtype: of the network.
    """
    structures = read_structures(input)
    seen = run(structures, model, batch_atoms=batch_atoms, device=device, dtype=dtype)
    folder = results_folder(out, input, "predict")
    write_structures(folder / "predicted.extxyz", seen)
    energies = np.array([atoms.get_potential_energy() for atoms in seen])
    counts = np.array([len(atoms) for atoms in seen])
    largest = np.array([np.linalg.norm(atoms.get_forces(), axis=1).max() for atoms in seen])
    write_table(
        folder / "predicted.csv",
        [
            {
                "structure": i,
                "formula": atoms.get_chemical_formula(),
                "atoms": len(atoms),
                "energy_eV": float(energies[i]),
                "largest_force_eV_per_A": float(largest[i]),
            }
            for i, atoms in enumerate(seen)
        ],
    )
    figure, axes = new_figure(2)
    axes[0].plot(energies / counts, ".", ms=3)
    axes[0].set(xlabel="structure", ylabel="energy, eV/atom")
    axes[1].plot(largest, ".", ms=3)
    axes[1].set(xlabel="structure", ylabel="largest force, eV/A")
    figure.savefig(folder / "predict.png", dpi=144)
    summary = {"structures": len(seen), "atoms": int(counts.sum())}
    write_summary(folder, summary | _errors(structures, seen))
    return 0


def _errors(structures, seen) -> dict[str, float]:
    """Mean absolute errors where the file has labels."""
    energy, forces = [], []
    for given, done in zip(structures, seen, strict=True):
        labels = given.calc.results if given.calc is not None else {}
        if "energy" in labels:
            energy.append(abs(labels["energy"] - done.get_potential_energy()) / len(done))
        if "forces" in labels:
            forces.append(np.abs(labels["forces"] - done.get_forces()).ravel())
    errors = {}
    if energy:
        errors["energy_error_meV_per_atom"] = float(1e3 * np.mean(energy))
    if forces:
        errors["forces_error_meV_per_A"] = float(1e3 * np.concatenate(forces).mean())
    return errors
