"""The potential as an ASE calculator."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

from .graph import Batch, Pairs
from .potential import Potential, Result, load_potential

Source = str | Path | Potential
DTYPES = {"float32": torch.float32, "float64": torch.float64}
IGNORED = ("charge", "spin")


class AttnCalculator(Calculator):
    """Energy, forces and stress of a potential, for everything ASE does.

    Results: `energy` and `free_energy` (eV), `energies` (atoms; they sum to the energy), `forces`
    (atoms, 3) in eV/A and, for gradient models of periodic structures, `stress` (xx, yy, zz, yz,
    xz, xy) in eV/A^3, tension positive. Of several potentials it gives the mean, and
    `forces_spread` (atoms), the standard deviation of the forces between them.

    Nothing of the process is changed: neither torch's default dtype nor threads nor random state.

    Args:
        source: a shipped checkpoint ("hco", "si"; None is the first), a file, a `Potential`, or a
            list of these.
        device: of the network.
        dtype: "float32", or "float64" for phonons and tight relaxations.
        skin: in A; the list of neighbors serves until an atom has moved by half of it.
        memory: the most MiB that intermediate results may take: large structures are then
            computed in pieces, with the same result. As many as needed by default.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: an unknown dtype, a device that is not there, a negative skin, an empty list.

    Example:
        >>> from ase.build import molecule
        >>> from attn_molecular.testing import untrained
        >>> water = molecule("H2O")
        >>> water.calc = AttnCalculator(untrained())
        >>> water.get_forces().shape
        (3, 3)
    """

    def __init__(
        self,
        source: Source | Sequence[Source] | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        skin: float = 0.4,
        memory: float | None = None,
    ):
        super().__init__()
        if not skin >= 0:
            raise ValueError(f"skin must not be negative, got {skin}")
        sources = list(source) if isinstance(source, (list, tuple)) else [source]
        if not sources:
            raise ValueError("source is an empty list")
        self.potentials = [ready(item, device, dtype) for item in sources]  # pyright: ignore[reportArgumentType]
        self.device, self.skin, self.memory = device, skin, memory
        self._lists: list[VerletList] = [VerletList(p, skin) for p in self.potentials]
        self._warned: set[str] = set()
        self._gradient = all(p.network.gives_stress for p in self.potentials)
        self.implemented_properties = ["energy", "free_energy", "energies", "forces"]
        if self._gradient:
            self.implemented_properties.append("stress")

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fills `results` in one pass; without forces or stress asked, only energies.

        Raises:
            PropertyNotImplementedError: stress of what has none.
            ValueError: a structure the model cannot take, named by atom or pair.
        """
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms
        assert atoms is not None
        self._warn_of_ignored(atoms)
        has_stress = self._gradient and has_volume(atoms)
        if "stress" in properties and not has_stress:
            raise PropertyNotImplementedError(self._why_no_stress())
        learning = any(name in properties for name in ("forces", "stress"))
        batch = Batch.from_atoms([atoms], self.device)
        seen = [
            potential(
                batch,
                forces=learning,
                stress=learning and has_stress,
                pairs=known(batch),
                memory=self.memory,
            )
            for potential, known in zip(self.potentials, self._lists, strict=True)
        ]
        self.results = _results(seen)

    def forget_lists(self) -> None:
        """Makes the next call search neighbors anew."""
        for known in self._lists:
            known.forget()

    def _warn_of_ignored(self, atoms: Atoms) -> None:
        for name in IGNORED:
            given = atoms.info.get(name)
            if given is not None and np.any(np.asarray(given) != 0) and name not in self._warned:
                self._warned.add(name)
                warnings.warn(
                    f"atoms.info[{name!r}] = {atoms.info[name]!r} is ignored: the model knows no "
                    f"{name}",
                    stacklevel=4,
                )

    def _why_no_stress(self) -> str:
        if not self._gradient:
            return "stress: this model has direct forces and no stress head"
        return "stress: the structure has no volume (no periodic cell)"


class VerletList:
    """Pairs that serve until an atom has moved by half the skin, or the structure is another.

    Args:
        potential: whose graph they are for.
        skin: in A; 0 makes them anew at every call.
    """

    def __init__(self, potential: Potential, skin: float):
        self.graph, self.skin = potential.network.graph, skin
        self._made_for: Batch | None = None
        self._pairs: Pairs | None = None

    def __call__(self, batch: Batch) -> Pairs:
        """The pairs for a batch."""
        made, pairs = self._made_for, self._pairs
        if pairs is None or made is None or not self._serves(made, batch):
            pairs = self.graph.pairs(batch, self.skin)
            self._made_for, self._pairs = batch, pairs
        return pairs

    def forget(self) -> None:
        """Makes the next call search anew."""
        self._made_for = self._pairs = None

    def _serves(self, made: Batch, batch: Batch) -> bool:
        if not self.skin or made.positions.shape != batch.positions.shape:
            return False
        same = all(
            torch.equal(getattr(made, name), getattr(batch, name))
            for name in ("numbers", "cell", "pbc", "counts")
        )
        if not same:
            return False
        # what is not finite is for a new list to name
        moved = (batch.positions - made.positions).square().sum(1).max()
        return bool(moved < (self.skin / 2) ** 2)


def has_volume(atoms: Atoms) -> bool:
    """Whether a structure repeats and its cell has a volume."""
    with np.errstate(all="ignore"):  # what is not finite is for the list of neighbors to name
        return bool(atoms.pbc.any() and 1e-8 < abs(np.linalg.det(atoms.cell.array)) < np.inf)


def ready(source: Source | None, device: str, dtype: str) -> Potential:
    """A potential of its own for one user: in evaluation mode, of that dtype, on that device.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: an unknown dtype, a device that is not there.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter of a torch without CUDA
        told = (str(error) or "not there").splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used: {told}") from error
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    potential = load_potential(source)
    if isinstance(source, Potential):
        potential = _copied(potential)
    potential = potential.eval().requires_grad_(False)
    potential.network.to(DTYPES[dtype])
    return potential.to(device)


def _copied(potential: Potential) -> Potential:
    import copy

    return copy.deepcopy(potential)


def _results(seen: Sequence[Result]) -> dict[str, Any]:
    energies = _mean([result.energies for result in seen])
    energy = float(energies.sum())
    results: dict[str, Any] = {"energy": energy, "free_energy": energy, "energies": energies}
    forces = [result.forces for result in seen if result.forces is not None]
    if forces:
        results["forces"] = _mean(forces)
        if len(seen) > 1:
            spread = torch.stack(forces).std(0, correction=0).square().sum(1).sqrt()
            results["forces_spread"] = spread.cpu().numpy()
    stress = [result.stress[0] for result in seen if result.stress is not None]
    if stress:
        results["stress"] = full_3x3_to_voigt_6_stress(_mean(stress))
    return results


def _mean(values: Sequence[Tensor]) -> np.ndarray:
    return torch.stack([x.detach() for x in values]).mean(0).cpu().numpy().copy()
