"""Nudged elastic bands."""

from itertools import pairwise
from typing import Literal

import numpy as np
from ase.mep import NEB
from ase.optimize import FIRE

from ..calculator import AttnCalculator
from .folder import (
    NOT_CONVERGED,
    frozen,
    new_figure,
    read_structure,
    results_folder,
    write_structures,
    write_summary,
    write_table,
)
from .relax import minimize


def neb(
    input: str,
    end: str,
    model: str | None = None,
    images: int = 5,
    fmax: float = 0.05,
    steps: int = 300,
    climb: bool = True,
    out: str | None = None,
    device: str = "cpu",
    dtype: Literal["float32", "float64"] = "float32",
) -> int:
    """Find a minimum energy path between two structures, whose ends are relaxed first.

    Args:
        input: file with the first structure.
        end: file with the last; the same atoms in the same order.
        model: potential; a shipped name or a file.
        images: between the ends.
        fmax: the largest force left, in eV/A.
        steps: the most steps.
        climb: whether the highest image climbs to the saddle point.
        out: folder for path.extxyz, path.csv, neb.png, summary.json.
        device: of the network.
        dtype: of the network.

    Returns:
        0, or 3 where ends or path did not converge.

    Raises:
        ValueError: the ends are not the same atoms.
    """
    first, last = read_structure(input), read_structure(end)
    if len(first) != len(last) or (first.numbers != last.numbers).any():
        raise ValueError(
            f"--end must have the atoms of --input in the same order; they are "
            f"{first.get_chemical_formula()} and {last.get_chemical_formula()}"
        )
    if images < 1:
        raise ValueError(f"--images must be at least 1, got {images}")
    calculator = AttnCalculator(model, device, dtype)
    folder = results_folder(out, input, "neb")
    converged = True
    for atoms in (first, last):
        atoms.calc = calculator
        converged &= minimize(atoms, fmax / 2, 500)
    chain = [first, *(first.copy() for _ in range(images)), last]
    for atoms in chain:
        atoms.calc = calculator
    band = NEB(chain, climb=climb, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate("idpp" if not first.pbc.any() else "linear", mic=bool(first.pbc.any()))
    converged &= bool(FIRE(band, logfile=None).run(fmax=fmax, steps=steps))  # pyright: ignore[reportArgumentType]

    path = [frozen(atoms) for atoms in chain]
    energies = np.array([atoms.get_potential_energy() for atoms in path])
    moved = [np.linalg.norm(b.positions - a.positions) for a, b in pairwise(path)]
    along = np.concatenate([[0.0], np.cumsum(moved)])
    write_structures(folder / "path.extxyz", path)
    write_table(
        folder / "path.csv",
        [
            {"image": i, "distance_A": float(x), "energy_eV": float(e)}
            for i, (x, e) in enumerate(zip(along, energies, strict=True))
        ],
    )
    figure, axes = new_figure()
    axes[0].plot(along, energies - energies[0], "o-", lw=1)
    axes[0].set(xlabel="distance along the path, A", ylabel="energy above the first end, eV")
    figure.savefig(folder / "neb.png", dpi=144)
    write_summary(
        folder,
        {
            "converged": bool(converged),
            "barrier_eV": float(energies.max() - energies[0]),
            "reverse_barrier_eV": float(energies.max() - energies[-1]),
            "reaction_energy_eV": float(energies[-1] - energies[0]),
            "highest_image": int(energies.argmax()),
        },
    )
    return 0 if converged else NOT_CONVERGED
