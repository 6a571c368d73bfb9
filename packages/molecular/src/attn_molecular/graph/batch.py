"""Structures as tensors, several in one batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Atoms of several structures, one after the other.

    Attributes:
        numbers: (atoms) atomic numbers.
        positions: (atoms, 3) in A; float64, so that neither distance from the origin nor the
            number of cells between two atoms costs precision.
        cell: (structures, 3, 3) lattice vectors as rows, in A.
        pbc: (structures, 3) along which of them the structure repeats.
        system: (atoms) the structure of each atom.
        counts: (structures) atoms in each.

    Example:
        >>> from ase.build import molecule
        >>> batch = Batch.from_atoms([molecule("H2O"), molecule("CH4")])
        >>> batch.counts.tolist(), batch.numbers[:3].tolist()
        ([3, 5], [8, 1, 1])
    """

    numbers: Int[Tensor, " atoms"]
    positions: Float[Tensor, "atoms 3"]
    cell: Float[Tensor, "structures 3 3"]
    pbc: Bool[Tensor, "structures 3"]
    system: Int[Tensor, " atoms"]
    counts: Int[Tensor, " structures"]

    @classmethod
    def from_atoms(cls, structures: Sequence[Atoms], device: str | torch.device = "cpu") -> "Batch":
        """Copies structures into tensors."""
        counts = torch.tensor([len(atoms) for atoms in structures])
        return cls(
            torch.from_numpy(np.concatenate([a.numbers for a in structures])).long(),
            torch.from_numpy(np.concatenate([a.positions for a in structures]).astype(np.float64)),
            torch.from_numpy(np.stack([a.cell.array for a in structures]).astype(np.float64)),
            torch.from_numpy(np.stack([a.pbc for a in structures])),
            torch.repeat_interleave(torch.arange(len(counts)), counts),
            counts,
        ).to(device)

    def __len__(self) -> int:
        return len(self.counts)

    def to(self, device: str | torch.device) -> "Batch":
        """The same on another device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def strained(
        self, positions: Float[Tensor, "atoms 3"], strain: Float[Tensor, "structures 3 3"]
    ) -> "Batch":
        """x' = x + x e and cell' = cell + cell e, with e the symmetric part of `strain`."""
        e = (strain + strain.transpose(1, 2)) / 2
        moved = positions + torch.einsum("ni,nij->nj", positions, e[self.system])
        return replace(self, positions=moved, cell=self.cell + self.cell @ e)
