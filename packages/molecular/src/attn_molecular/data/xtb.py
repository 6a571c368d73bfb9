"""Molecules labelled by GFN2-xTB."""

import numpy as np
from ase.build import molecule

from .emt import labelled
from .reading import Frame
from .structures import StructureData


class XtbMolecules(StructureData):
    """Distorted molecules with GFN2-xTB energies and forces; needs the extra [xtb].

    Args:
        molecules: names in ASE's G2 set, as "CH3CH2OH".
        frames: to train and validate on; a fifth as many to test on.
        rattle: standard deviation of displacements, in A.
        batch_size: structures in a batch.
        batch_atoms: the most atoms in a batch, instead of `batch_size`.
        validation: share of the training frames to validate on.
        seed: of the structures, the hold-out and the order.

    Raises:
        ValueError: tblite is not installed.

    Source: Bannwarth, Ehlert and Grimme, 2019, J. Chem. Theory Comput. 15, 1652.
    """

    def __init__(
        self,
        molecules: tuple[str, ...] = ("CH3CH2OH", "CH3CHO", "C6H6"),
        frames: int = 300,
        rattle: float = 0.08,
        batch_size: int = 10,
        batch_atoms: int | None = None,
        validation: float = 0.1,
        seed: int = 0,
    ):
        super().__init__(batch_size, batch_atoms, validation, "fit", None, 0, seed)
        self.molecules, self.frames, self.rattle = molecules, frames, rattle

    def load(self) -> tuple[list[Frame], list[Frame]]:
        """Makes the structures and computes their labels."""
        try:
            from tblite.ase import TBLite
        except ImportError:
            raise ValueError(
                "XtbMolecules needs tblite: install the package's extra [xtb]"
            ) from None
        random = np.random.default_rng(self.seed)
        made = []
        for index in range(self.frames + max(1, self.frames // 5)):
            atoms = molecule(self.molecules[index % len(self.molecules)])
            atoms.positions += random.normal(scale=self.rattle, size=atoms.positions.shape)
            made.append(labelled(atoms, TBLite(method="GFN2-xTB", verbosity=0)))
        return made[: self.frames], made[self.frames :]
