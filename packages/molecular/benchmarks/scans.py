"""Pairs of atoms and stretched bonds by a potential of H, C and O: minima, kinks, errors.

    python -m benchmarks.scans DATA [SOURCE]

DATA has the folder ethanol; SOURCE is hco by default.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.optimize import BFGS

from attn_molecular import AttnCalculator, predict
from attn_molecular.data.reading import Frame, read_frames

STEP = 0.01  # A
BONDS = {"O-H": (2, 3), "C-O": (1, 2), "C-C": (0, 1), "C-H": (0, 6)}  # of ase.build's ethanol


def kinks_and_minima(energies: np.ndarray, forces: np.ndarray) -> tuple[float, int]:
    """The largest |dE + F dx| of a step in meV, and the minima in between."""
    change = np.diff(energies)
    worst = np.abs(change + STEP * (forces[1:] + forces[:-1]) / 2).max()
    signs = np.sign(change)
    return 1e3 * float(worst), int(((signs[:-1] < 0) & (signs[1:] > 0)).sum())


def curve(structures: list[Atoms], source: str, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies, and forces on the last atom along a direction."""
    seen = predict(structures, source, batch_atoms=400)
    energies = np.array([atoms.get_potential_energy() for atoms in seen])
    return energies, np.array([atoms.get_forces()[-1] @ along for atoms in seen])


def dimers(source: str, frames: list[Frame]) -> None:
    """Each kind of pair, over the distances that the data have."""
    kinds: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        kinds[frame.atoms.get_chemical_formula()].append(frame)
    for kind, known in kinds.items():
        far = [f.atoms.get_distance(0, 1) for f in known]
        places = np.arange(min(far), max(far), STEP)
        pairs = [Atoms(known[0].atoms.numbers, [[0, 0, 0], [0, 0, x]]) for x in places]
        energies, forces = curve(pairs, source, np.array([0.0, 0.0, 1.0]))
        kink, minima = kinks_and_minima(energies, forces)
        given = np.array([f.energy for f in known])
        last = int(np.argmax(far))
        print(
            f"{kind:<3} {min(far):.2f} to {max(far):.2f} A: {minima} minima, the lowest at "
            f"{places[int(np.argmin(energies))]:.2f} A and "
            f"{energies[-1] - energies.min():.2f} eV deep (data: {far[int(np.argmin(given))]:.2f} "
            f"A, {given[last] - given.min():.2f} eV), |dE + F dx| up to {kink:.3f} meV",
            flush=True,
        )


def bonds(source: str) -> None:
    """Each kind of bond of relaxed ethanol, from 0.7 to 1.5 times its length."""
    relaxed = molecule("CH3CH2OH")
    relaxed.calc = AttnCalculator(source)
    BFGS(relaxed, logfile=None).run(fmax=0.02, steps=200)
    for name, (a, b) in BONDS.items():
        order = [i for i in range(len(relaxed)) if i != b] + [b]
        along = relaxed.get_distance(a, b, vector=True)
        length = float(np.linalg.norm(along))
        stretched = []
        for x in np.arange(0.7 * length, 1.5 * length, STEP):
            moved = relaxed.copy()
            moved.positions[b] = moved.positions[a] + along * (x / length)
            stretched.append(moved[order])
        kink, minima = kinks_and_minima(*curve(stretched, source, along / length))
        print(f"{name} of {length:.3f} A: {minima} minima, |dE + F dx| up to {kink:.3f} meV")


def main(data: str, source: str = "hco") -> None:
    bonds(source)
    dimers(source, read_frames([Path(data, "ethanol", "test_dimers.extxyz.gz")])[0])


if __name__ == "__main__":
    main(*sys.argv[1:3])
