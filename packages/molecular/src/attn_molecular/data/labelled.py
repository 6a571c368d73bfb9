"""Batches of structures with their labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..graph import Batch
from .reading import Frame


@dataclass(frozen=True)
class Labelled:
    """Structures and labels; NaN where a structure has none.

    Attributes:
        batch: the structures.
        energy: (structures) in eV.
        forces: (atoms, 3) in eV/A.
        stress: (structures, 3, 3) in eV/A^3.
    """

    batch: Batch
    energy: Float[Tensor, " structures"]
    forces: Float[Tensor, "atoms 3"]
    stress: Float[Tensor, "structures 3 3"]

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> "Labelled":
        """Collects frames."""
        return cls(
            Batch.from_atoms([frame.atoms for frame in frames]),
            torch.tensor([frame.energy for frame in frames], dtype=torch.float64),
            torch.from_numpy(np.concatenate([frame.forces for frame in frames])),
            torch.from_numpy(np.stack([frame.stress for frame in frames])),
        )

    def __len__(self) -> int:
        return len(self.batch)

    def to(self, device: str | torch.device, **_: bool) -> "Labelled":
        """The same on another device."""
        return Labelled(*(getattr(self, field.name).to(device) for field in fields(self)))

    def clone(self) -> "Labelled":
        """A copy of its tensors, usable by autograd wherever the original was made."""
        b = self.batch
        batch = Batch(*(getattr(b, field.name).clone() for field in fields(b)))
        return Labelled(batch, self.energy.clone(), self.forces.clone(), self.stress.clone())

    def rotated(self, generator: torch.Generator | None = None) -> "Labelled":
        """Each structure turned at random, its labels with it."""
        b = self.batch
        turn = random_rotations(len(b), generator)
        of_atom = turn[b.system]

        def turned(x: Tensor) -> Tensor:
            return torch.einsum("nij,nj->ni", of_atom, x)

        cell = torch.einsum("gij,gaj->gai", turn, b.cell)
        moved = Batch(b.numbers, turned(b.positions), cell, b.pbc, b.system, b.counts)
        stress = turn @ self.stress @ turn.transpose(1, 2)
        return Labelled(moved, self.energy, turned(self.forces), stress)


def random_rotations(
    count: int, generator: torch.Generator | None = None
) -> Float[Tensor, "count 3 3"]:
    """Proper rotations, uniformly distributed, in float64.

    Example:
        >>> turn = random_rotations(2)
        >>> torch.allclose(torch.linalg.det(turn), torch.ones(2, dtype=torch.float64))
        True
    """
    q, r = torch.linalg.qr(torch.randn(count, 3, 3, dtype=torch.float64, generator=generator))
    q = q * torch.diagonal(r, dim1=1, dim2=2).sign()[:, None]
    return q * torch.linalg.det(q)[:, None, None]


def fit_references(frames: Sequence[Frame], elements: int) -> Float[Tensor, " elements"]:
    """Energies of atoms whose sums are nearest to the frames' energies: least squares in float64.

    Raises:
        ValueError: no frame has an energy.
    """
    known = [frame for frame in frames if np.isfinite(frame.energy)]
    if not known:
        raise ValueError("references need energies, and no frame has one")
    numbers = sorted({int(z) for frame in known for z in frame.atoms.numbers})
    counts = np.array([[(f.atoms.numbers == z).sum() for z in numbers] for f in known], float)
    energies = np.array([frame.energy for frame in known])
    solution, *_ = np.linalg.lstsq(counts, energies, rcond=None)
    references = torch.zeros(elements, dtype=torch.float64)
    references[numbers] = torch.from_numpy(solution)
    return references


def references_from(energies: Mapping[int, float], elements: int) -> Float[Tensor, " elements"]:
    """References as given for atomic numbers, 0 for the others."""
    references = torch.zeros(elements, dtype=torch.float64)
    for z, energy in energies.items():
        references[z] = energy
    return references


def force_scale(frames: Sequence[Frame], references: Tensor) -> float:
    """Root mean square of the force components; without forces, of energies per atom."""
    forces = np.concatenate([f.forces[np.isfinite(f.forces)] for f in frames])
    if forces.size and np.square(forces).mean() > 0:
        return float(np.sqrt(np.square(forces).mean()))
    left = [
        (f.energy - float(references[f.atoms.numbers].sum())) / len(f.atoms)
        for f in frames
        if np.isfinite(f.energy)
    ]
    return float(np.std(left)) or 1.0
