"""Potentials with random weights, and what a potential's forces are measured by."""

from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from jaxtyping import Float

from .calculator import AttnCalculator, Source
from .models import create
from .potential import Potential


def untrained(
    numbers: tuple[int, ...] = (1, 6, 8), seed: int = 0, scale: float = 0.5, **changes: Any
) -> Potential:
    """A small potential with random weights; the process's random state stays as it was.

    Args:
        numbers: atomic numbers it knows.
        seed: of the weights.
        scale: in eV.
        changes: settings that differ from `escaip_tiny`'s with a smooth bond order.

    Example:
        >>> untrained().symbols
        ['H', 'C', 'O']
    """
    settings = {
        "dim": 32, "heads": 2, "distance_size": 24, "distance_dim": 24, "smooth_order": True,
    } | changes  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = create("escaip_tiny", **settings)
        with torch.no_grad():  # embeddings start at nearly nothing: tell the elements apart
            for name, p in network.named_parameters():
                if "_atom" in name:
                    p.normal_(std=0.5)
    references = torch.zeros(network.config.elements)
    references[list(numbers)] = -torch.arange(1.0, len(numbers) + 1)
    return Potential(network.eval(), references, scale, list(numbers))


def jacobian_asymmetry(
    atoms: Atoms, source: Source | None, dtype: str = "float64", step: float = 1e-3
) -> float:
    """||(J - J^T) / 2|| / ||J|| of the forces' Jacobian, by central differences.

    Args:
        atoms: a structure; it stays as it is.
        source: as for `AttnCalculator`.
        dtype: likewise.
        step: of the differences, in A; what they neglect goes with its square.

    Example:
        >>> from ase.build import molecule
        >>> jacobian_asymmetry(molecule("H2O"), untrained(), step=1e-4) < 1e-6
        True
    """
    atoms = atoms.copy()
    atoms.calc = AttnCalculator(source, dtype=dtype, skin=0.0)
    rows = []
    for atom in range(len(atoms)):
        for axis in range(3):
            ends = []
            for sign in (1, -1):
                atoms.positions[atom, axis] += sign * step
                ends.append(atoms.get_forces().ravel())
                atoms.positions[atom, axis] -= sign * step
            rows.append((ends[0] - ends[1]) / (2 * step))
    jacobian = np.array(rows)
    return float(np.linalg.norm((jacobian - jacobian.T) / 2) / np.linalg.norm(jacobian))


def nve(
    source: Source | None, atoms: Atoms, step: float, steps: int
) -> Float[np.ndarray, " steps"]:
    """Total energy above its start in meV/atom after every step of Verlet, from 300 K velocities.

    Args:
        source: as for `AttnCalculator`.
        atoms: where to start; it stays as it is.
        step: in fs.
        steps: their number.

    Example:
        >>> from ase.build import molecule
        >>> nve(untrained(), molecule("H2O"), step=0.5, steps=3).shape
        (3,)
    """
    atoms = atoms.copy()
    atoms.calc = AttnCalculator(source)
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, step * units.fs)
    energies = []
    for _ in range(steps):
        dynamics.run(1)
        energies.append(atoms.get_total_energy())
    return (np.array(energies) - energies[0]) / len(atoms) * 1e3


def drift(energies: Float[np.ndarray, " steps"], step: float) -> float:
    """Slope of what `nve` gives, in meV/atom/ps, for a step in fs.

    Example:
        >>> round(drift(np.arange(10) * 0.001, step=0.5), 6)
        2.0
    """
    return float(np.polyfit(np.arange(len(energies)) * step * 1e-3, energies, 1)[0])
