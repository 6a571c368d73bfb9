"""Equations of state and elastic constants."""

from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.eos import EquationOfState
from ase.stress import voigt_6_to_full_3x3_stress

from ..calculator import AttnCalculator, has_volume
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

VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


def eos(
    input: str,
    model: str | None = None,
    strain: float = 0.06,
    points: int = 11,
    relax_positions: bool = True,
    steps: int = 500,
    out: str | None = None,
    device: str = "cpu",
    dtype: Literal["float32", "float64"] = "float64",
) -> int:
    """Compute energy against volume, and the bulk modulus by Birch and Murnaghan's equation.

    Args:
        input: file with the crystal; its cell is relaxed first.
        model: potential; a shipped name or a file.
        strain: largest relative change of the volume, both ways.
        points: volumes.
        relax_positions: whether positions relax at each volume.
        steps: the most of each relaxation.
        out: folder for volumes.extxyz, eos.csv, eos.png, summary.json.
        device: of the network.
        dtype: of the network.

    Returns:
        0, or 3 where a relaxation did not converge.

    Raises:
        ValueError: the structure has no volume, or numbers are out of range.
    """
    if not 0 < strain < 0.5 or points < 5 or steps < 1:
        raise ValueError("--strain must be within 0 and 0.5, --points at least 5, --steps 1")
    atoms, converged = _relaxed(input, model, device, dtype, steps)
    folder = results_folder(out, input, "eos")
    frames = []
    for scale in np.linspace(1 - strain, 1 + strain, points) ** (1 / 3):
        one = atoms.copy()
        one.set_cell(atoms.cell.array * scale, scale_atoms=True)
        one.calc = atoms.calc
        if relax_positions:
            converged &= minimize(one, 1e-3, steps)
        frames.append(frozen(one))
    volumes = np.array([a.cell.volume for a in frames])
    energies = np.array([a.get_potential_energy() for a in frames])
    fit = EquationOfState(volumes, energies, eos="birchmurnaghan")
    none = f"no minimum of the energy within {strain:.0%} of the volume"
    try:
        v0, e0, b0 = fit.fit(warn=False)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{none}: no equation fits") from error
    if not volumes[0] < v0 < volumes[-1]:
        raise ValueError(
            f"{none}: that of the fitted equation is at {v0 / len(atoms):.2f} A^3/atom"
        )
    write_structures(folder / "volumes.extxyz", frames)
    rows = [
        {"volume_A3": float(v), "energy_eV": float(e)}
        for v, e in zip(volumes, energies, strict=True)
    ]
    write_table(folder / "eos.csv", rows)
    figure, axes = new_figure()
    count = len(atoms)
    grid = np.linspace(volumes[0], volumes[-1], 200)
    curve = fit.func(grid, *fit.eos_parameters)
    axes[0].plot(grid / count, (curve - e0) / count, lw=1)
    axes[0].plot(volumes / count, (energies - e0) / count, "o", ms=4)
    axes[0].set(xlabel="volume, A$^3$/atom", ylabel="energy above the minimum, eV/atom")
    figure.savefig(folder / "eos.png", dpi=144)
    write_summary(
        folder,
        {
            "converged": bool(converged),
            "volume_A3_per_atom": float(v0 / count),
            "energy_eV_per_atom": float(e0 / count),
            "bulk_modulus_GPa": float(b0 / units.GPa),
        },
    )
    return 0 if converged else NOT_CONVERGED


def elastic(
    input: str,
    model: str | None = None,
    strain: float = 0.005,
    points: int = 5,
    steps: int = 500,
    out: str | None = None,
    device: str = "cpu",
) -> int:
    """Compute the elastic constants, once from stress and once from energy, with relaxed positions.

    Args:
        input: file with the crystal; its cell is relaxed first.
        model: potential; a shipped name or a file.
        strain: largest strain of each of the six kinds.
        points: strains of each kind, both signs and zero; odd.
        steps: the most of each relaxation.
        out: folder for relaxed.extxyz, elastic.csv, elastic.png, summary.json.
        device: of the network.

    Returns:
        0, or 3 where a relaxation did not converge.

    Raises:
        ValueError: the structure has no volume, or numbers are out of range.
    """
    if not 0 < strain < 0.1 or points < 3 or points % 2 == 0 or steps < 1:
        raise ValueError(
            "--strain must be within 0 and 0.1, --points odd and at least 3, --steps at least 1"
        )
    atoms, converged = _relaxed(input, model, device, "float64", steps)
    folder = results_folder(out, input, "elastic")
    write_structures(folder / "relaxed.extxyz", [frozen(atoms)])
    volume, amounts = atoms.cell.volume, np.linspace(-strain, strain, points)
    stresses = np.zeros((6, points, 6))
    energies = np.zeros((6, points))
    for kind in range(6):
        for place, amount in enumerate(amounts):
            one, good = _strained(atoms, kind, amount, steps)
            converged &= good
            stresses[kind, place], energies[kind, place] = (
                one.get_stress(),
                one.get_potential_energy(),
            )
    constants = np.array([np.polyfit(amounts, stresses[kind], 1)[0] for kind in range(6)])
    constants = (constants + constants.T) / 2 / units.GPa
    diagonal = np.array(
        [2 * np.polyfit(amounts, energies[kind], 2)[0] / volume / units.GPa for kind in range(6)]
    )
    write_table(
        folder / "elastic.csv",
        [
            {"GPa": VOIGT[i]} | {VOIGT[j]: float(constants[i, j]) for j in range(6)}
            for i in range(6)
        ],
    )
    figure, axes = new_figure(2)
    for kind in range(6):
        axes[0].plot(amounts, stresses[kind, :, kind] / units.GPa, ".-", label=VOIGT[kind], lw=1)
        axes[1].plot(amounts, energies[kind] - energies[kind, points // 2], ".-", lw=1)
    axes[0].set(xlabel="strain", ylabel="stress of the same kind, GPa")
    axes[0].legend(frameon=False, fontsize=8)
    axes[1].set(xlabel="strain", ylabel="energy above no strain, eV")
    figure.savefig(folder / "elastic.png", dpi=144)
    inverse = np.linalg.inv(constants)
    write_summary(
        folder,
        {
            "converged": bool(converged),
            "bulk_modulus_GPa": float(1 / inverse[:3, :3].sum()),
            "C11_GPa": float(np.mean([constants[i, i] for i in range(3)])),
            "C12_GPa": float(np.mean([constants[0, 1], constants[0, 2], constants[1, 2]])),
            "C44_GPa": float(np.mean([constants[i, i] for i in range(3, 6)])),
            "C11_from_energy_GPa": float(diagonal[:3].mean()),
            "C44_from_energy_GPa": float(diagonal[3:].mean()),
            "constants_GPa": constants,
        },
    )
    return 0 if converged else NOT_CONVERGED


def _relaxed(
    input: str, model: str | None, device: str, dtype: str, steps: int
) -> tuple[Atoms, bool]:
    atoms = read_structure(input)
    if not has_volume(atoms):
        raise ValueError(f"--input {input}: the structure has no volume (no periodic cell)")
    atoms.calc = AttnCalculator(model, device, dtype, skin=0.0)
    return atoms, minimize(atoms, 1e-4, steps, cell=True)


def _strained(atoms: Atoms, kind: int, amount: float, steps: int) -> tuple[Atoms, bool]:
    """A copy with engineering strain `amount` of one of Voigt's kinds, positions relaxed."""
    voigt = np.zeros(6)
    voigt[kind] = amount if kind < 3 else amount / 2
    one = atoms.copy()
    one.set_cell(
        atoms.cell.array @ (np.eye(3) + voigt_6_to_full_3x3_stress(voigt)), scale_atoms=True
    )
    one.calc = atoms.calc
    return one, minimize(one, 1e-4, steps)
