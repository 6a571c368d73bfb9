"""Relaxation of positions and cell."""

from pathlib import Path
from typing import Literal

from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS

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

OPTIMIZERS = {"fire": FIRE, "bfgs": BFGS, "lbfgs": LBFGS}


def relax(
    input: str,
    model: str | None = None,
    cell: bool = False,
    fmax: float = 0.01,
    steps: int = 500,
    optimizer: Literal["fire", "bfgs", "lbfgs"] = "bfgs",
    out: str | None = None,
    device: str = "cpu",
    dtype: Literal["float32", "float64"] = "float64",
) -> int:
    """Relax positions and, with --cell, the cell.

    Args:
        input: file with the structure; the last one in it.
        model: potential; a shipped name or a file.
        cell: whether the cell relaxes too.
        fmax: the largest force left, in eV/A.
        steps: the most steps.
        optimizer: fire, bfgs or lbfgs.
        out: folder for relaxed.extxyz, path.extxyz, steps.csv, relax.png, summary.json.
        device: of the network.
        dtype: of the network.

    Returns:
        0, or 3 where it did not converge.

    Raises:
        ValueError: `fmax` or `steps` out of range.
    """
    if fmax <= 0 or steps < 1:
        raise ValueError(f"--fmax must be positive and --steps at least 1, got {fmax} and {steps}")
    atoms = read_structure(input)
    atoms.calc = AttnCalculator(model, device, dtype)
    folder = results_folder(out, input, "relax")
    frames, rows = [], []

    def note() -> None:
        frames.append(frozen(atoms))
        rows.append(
            {
                "step": len(rows),
                "energy_eV": atoms.get_potential_energy(),
                "fmax_eV_per_A": largest_force(atoms),
                "volume_A3": atoms.cell.volume,
            }
        )

    converged = minimize(atoms, fmax, steps, optimizer, cell, note)
    write_structures(folder / "relaxed.extxyz", [frozen(atoms)])
    write_structures(folder / "path.extxyz", frames)
    write_table(folder / "steps.csv", rows)
    _draw(folder / "relax.png", rows, fmax)
    write_summary(
        folder,
        {
            "converged": converged,
            "steps": len(rows) - 1,
            "energy_eV": atoms.get_potential_energy(),
            "energy_gained_eV": rows[0]["energy_eV"] - atoms.get_potential_energy(),
            "largest_force_eV_per_A": largest_force(atoms),
            "cell": atoms.cell.array,
        },
    )
    if not converged:
        print(f"not converged after {steps} steps: raise --steps or --fmax")
    return 0 if converged else NOT_CONVERGED


def minimize(
    atoms: Atoms, fmax: float, steps: int, optimizer: str = "bfgs", cell: bool = False, note=None
) -> bool:
    """Relaxes in place; whether it converged. `note` is called at every step."""
    moved = FrechetCellFilter(atoms) if cell else atoms
    search = OPTIMIZERS[optimizer](moved, logfile=None)
    if note is not None:
        search.attach(note)
    return bool(search.run(fmax=fmax, steps=steps))


def largest_force(atoms: Atoms) -> float:
    """The longest force, in eV/A."""
    return float((atoms.get_forces() ** 2).sum(1).max() ** 0.5)


def _draw(path: Path, rows: list[dict], fmax: float) -> None:
    figure, axes = new_figure(2)
    steps = [row["step"] for row in rows]
    energy = [row["energy_eV"] - rows[-1]["energy_eV"] for row in rows]
    axes[0].plot(steps, energy, ".-", lw=1)
    axes[0].set(xlabel="step", ylabel="energy above the end, eV")
    axes[1].semilogy(steps, [row["fmax_eV_per_A"] for row in rows], ".-", lw=1)
    axes[1].axhline(fmax, color="0.6", lw=1, ls="--")
    axes[1].set(xlabel="step", ylabel="largest force, eV/A")
    figure.savefig(path, dpi=144)
