"""Vibrations of crystals and molecules by finite differences."""

import shutil

import numpy as np
from ase import units
from ase.phonons import Phonons
from ase.vibrations import Vibrations

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
from .relax import largest_force, minimize

THZ = units._e / units._hplanck * 1e-12  # per eV
PER_CM = 1 / units.invcm
TIGHT = 1e-5
UNSTABLE = -0.1  # THz; acoustic modes at the zone's center are not exactly 0


def phonons(
    input: str,
    model: str | None = None,
    supercell: tuple[int, int, int] = (3, 3, 3),
    delta: float = 0.01,
    steps: int = 1000,
    out: str | None = None,
    device: str = "cpu",
) -> int:
    """Compute the vibrations of a crystal (bands and density) or a molecule (frequencies).

    The network runs in float64, and positions are relaxed to 1e-5 eV/A first.

    Args:
        input: file with the structure: of a crystal, the primitive cell.
        model: potential; a shipped name or a file.
        supercell: repetitions of a crystal's cell.
        delta: displacement, in A.
        steps: the most steps of the relaxation.
        out: folder for relaxed.extxyz, frequencies.csv, phonons.png, summary.json.
        device: of the network.

    Returns:
        0, or 3 where the relaxation did not converge.

    Raises:
        ValueError: `delta` or `supercell` out of range.
    """
    if not 0 < delta < 0.5 or min(supercell) < 1:
        raise ValueError(
            "--delta must be within 0 and 0.5 A, --supercell at least 1 along each axis"
        )
    atoms = read_structure(input)
    atoms.calc = AttnCalculator(model, device, "float64", skin=0.0)
    folder = results_folder(out, input, "phonons")
    converged = minimize(atoms, TIGHT, steps)
    write_structures(folder / "relaxed.extxyz", [frozen(atoms)])
    cache = folder / "displacements"
    shutil.rmtree(cache, ignore_errors=True)  # of another run
    if atoms.pbc.any():
        summary = _crystal(atoms, supercell, delta, cache, folder)
    else:
        summary = _molecule(atoms, delta, cache, folder)
    write_summary(
        folder, {"converged": converged, "largest_force_eV_per_A": largest_force(atoms)} | summary
    )
    return 0 if converged else NOT_CONVERGED


def _crystal(atoms, supercell, delta, cache, folder) -> dict[str, float]:
    displaced = Phonons(atoms, atoms.calc, supercell=supercell, delta=delta, name=str(cache))
    displaced.run()
    displaced.read(acoustic=True)
    path = atoms.cell.bandpath(npoints=100, pbc=atoms.pbc)
    bands = displaced.get_band_structure(path)
    energies = THZ * bands.energies[0]  # pyright: ignore[reportAttributeAccessIssue]
    if energies.min() < UNSTABLE:
        print(
            f"imaginary down to {energies.min():.3g} THz: a larger --supercell than "
            f"{list(supercell)} shows whether that is the crystal, or images of the displaced atom "
            f"acting together"
        )
    density = displaced.get_dos(kpts=(12, 12, 12)).sample_grid(npts=200, width=5e-4)
    figure, axes = new_figure(2)
    x, special, labels = path.get_linear_kpoint_axis()
    axes[0].plot(x, energies, color="C0", lw=1)
    axes[0].set_xticks(special, [label.replace("G", "Γ") for label in labels])
    axes[0].set(ylabel="frequency, THz", xlim=(x[0], x[-1]))
    axes[0].axhline(0, color="0.6", lw=0.8)
    axes[1].plot(THZ * density.get_energies(), density.get_weights() / THZ, lw=1)
    axes[1].set(xlabel="frequency, THz", ylabel="density of states, 1/THz")
    figure.savefig(folder / "phonons.png", dpi=144)
    rows = [
        {"q": " ".join(f"{k:.4f}" for k in q)}
        | {f"band_{i}_THz": float(e) for i, e in enumerate(band)}
        for q, band in zip(path.kpts, energies, strict=True)
    ]
    write_table(folder / "frequencies.csv", rows)
    gamma = energies[np.linalg.norm(path.kpts, axis=1) < 1e-9]
    return {
        "highest_THz": float(energies.max()),
        "lowest_THz": float(energies.min()),
        "highest_at_gamma_THz": float(gamma.max()) if len(gamma) else float("nan"),
    }


def _molecule(atoms, delta, cache, folder) -> dict[str, float]:
    displaced = Vibrations(atoms, delta=delta, name=str(cache))
    displaced.run()
    values = displaced.get_energies()
    cm = PER_CM * np.where(np.abs(values.imag) > np.abs(values.real), -values.imag, values.real)  # pyright: ignore[reportAttributeAccessIssue]
    write_table(
        folder / "frequencies.csv",
        [{"mode": i, "frequency_per_cm": float(f)} for i, f in enumerate(cm)],
    )
    figure, axes = new_figure()
    axes[0].vlines(cm, 0, 1, lw=1.2)
    axes[0].set(xlabel="frequency, 1/cm (negative: imaginary)", yticks=[])
    figure.savefig(folder / "phonons.png", dpi=144)
    real = np.sort(cm)[6 if len(atoms) > 2 else 5 :]
    return {
        "highest_per_cm": float(cm.max()),
        "lowest_per_cm": float(cm.min()),
        "zero_point_energy_eV": float(0.5 * real[real > 0].sum() / PER_CM),
    }
