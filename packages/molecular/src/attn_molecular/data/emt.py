"""Metals labelled by ASE's effective medium theory: data without a download."""

from typing import Literal

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from .reading import Frame
from .structures import StructureData


class EmtMetals(StructureData):
    """Rattled and strained cells of Cu, Ag, Au, Al, Ni, Pd and Pt, with energy, forces and stress.

    For trials and tests: the labels are a classical potential's.

    Args:
        frames: to train and validate on; a fifth as many to test on.
        symbols: which metals.
        cells: repetitions of the cubic cell of 4 atoms along each axis.
        rattle: standard deviation of displacements, in A.
        strain: standard deviation of the strain.
        batch_size: structures in a batch.
        batch_atoms: the most atoms in a batch, instead of `batch_size`.
        validation: share of the training frames to validate on.
        seed: of the structures, the hold-out and the order.

    Source: Jacobsen, Stoltze and Norskov, 1996, Surf. Sci. 366, 394.
    """

    def __init__(
        self,
        frames: int = 200,
        symbols: tuple[Literal["Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt"], ...] = ("Cu", "Au"),
        cells: int = 2,
        rattle: float = 0.1,
        strain: float = 0.02,
        batch_size: int = 4,
        batch_atoms: int | None = None,
        validation: float = 0.1,
        seed: int = 0,
    ):
        super().__init__(batch_size, batch_atoms, validation, "fit", None, 0, seed)
        self.frames, self.symbols, self.cells = frames, symbols, cells
        self.rattle, self.strain = rattle, strain

    def load(self) -> tuple[list[Frame], list[Frame]]:
        """Makes the structures and computes their labels."""
        random = np.random.default_rng(self.seed)
        total = self.frames + max(1, self.frames // 5)
        made = [self._make(random, i) for i in range(total)]
        return made[: self.frames], made[self.frames :]

    def _make(self, random: np.random.Generator, index: int) -> Frame:
        atoms = bulk(self.symbols[index % len(self.symbols)], cubic=True).repeat(self.cells)
        strain = random.normal(scale=self.strain, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.positions += random.normal(scale=self.rattle, size=atoms.positions.shape)
        return labelled(atoms, EMT())


def labelled(atoms: Atoms, calculator, group: str = "") -> Frame:
    """A frame with the labels of an ASE calculator."""
    atoms.calc = calculator
    stress = np.full((3, 3), np.nan)
    if atoms.pbc.all():
        stress = atoms.get_stress(voigt=False)
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    return Frame(plain, atoms.get_potential_energy(), atoms.get_forces(), stress, group)
