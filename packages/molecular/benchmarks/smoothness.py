"""The energy of an atom that leaves four others, with the official bond order and the smooth one.

python -m benchmarks.smoothness ../../docs/img/molecular/smooth.png
"""

import sys

import numpy as np
from ase import Atoms

from attn_molecular import AttnCalculator
from attn_molecular.testing import untrained

STEP = 0.005


def scan(smooth: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, energies, and |dE + F dx| of every step, with random weights in float64."""
    atoms = Atoms("O5", [[0, 0, 0], [1.9, 0, 0], [0, 1.9, 0], [0, 0, 1.9], [4.5, 0.3, 0.2]])
    potential = untrained(smooth_order=smooth, scale=2.0)
    atoms.calc = AttnCalculator(potential, dtype="float64", skin=0.0)
    places, energies, forces = np.arange(4.5, 8.5, STEP), [], []
    for x in places:
        atoms.positions[-1, 0] = x
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces()[-1, 0])
    work = -STEP * (np.array(forces)[1:] + np.array(forces)[:-1]) / 2
    return places, np.array(energies), np.abs(np.diff(energies) - work)


def main(path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots(1, 2)
    for smooth, name in ((False, "official bond order"), (True, "smooth_order")):
        places, energies, residuals = scan(smooth)
        axes[0].plot(places, energies - energies[-1], lw=1.2, label=name)
        axes[1].semilogy(places[1:], np.maximum(residuals, 1e-12), lw=1, label=name)
        print(f"{name}: largest |dE - work| in a step of {STEP} A: {residuals.max():.2e} eV")
    axes[0].set(xlabel="position of the atom, A", ylabel="energy, eV")
    axes[1].set(xlabel="position of the atom, A", ylabel="|dE - work| per step, eV")
    axes[1].axhline(1e-3, color="0.6", lw=1, ls="--")
    axes[0].legend(frameon=False, fontsize=8)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=144)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "smoothness.png")
