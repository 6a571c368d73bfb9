"""Many structures at once."""

from collections.abc import Iterator, Sequence

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from .calculator import Source, has_volume, ready
from .graph import Batch

__all__ = ["fill_by_atoms", "predict"]


def predict(
    structures: Sequence[Atoms],
    source: Source | None = None,
    *,
    batch_atoms: int = 1000,
    forces: bool = True,
    stress: bool = True,
    device: str = "cpu",
    dtype: str = "float32",
) -> list[Atoms]:
    """Copies of structures with their results, in order, several in one pass of the network.

    Args:
        structures: molecules and crystals, mixed as they come.
        source: as for `AttnCalculator`, one of them.
        batch_atoms: the most atoms in a pass; a larger structure has one of its own.
        forces: whether forces are wanted.
        stress: whether stress is, where there is one.
        device: of the network.
        dtype: "float32" or "float64".

    Raises:
        ValueError: a structure the model cannot take, by its place in the list.

    Example:
        >>> from ase.build import molecule
        >>> from attn_molecular.testing import untrained
        >>> water, methane = predict([molecule("H2O"), molecule("CH4")], untrained())
        >>> methane.get_forces().shape
        (5, 3)
    """
    potential = ready(source, device, dtype)
    results: list[Atoms] = []
    for chosen in fill_by_atoms([len(atoms) for atoms in structures], batch_atoms):
        group = [structures[i] for i in chosen]
        wants = stress and potential.network.gives_stress and any(map(has_volume, group))
        results += _one_pass(potential, group, chosen[0], forces, wants, device)
    return results


def fill_by_atoms(sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """Consecutive indices whose sizes sum to at most `most`; a larger one stands alone.

    Raises:
        ValueError: `most` is below 1.

    Example:
        >>> list(fill_by_atoms([3, 3, 9, 2], 6))
        [[0, 1], [2], [3]]
    """
    if most < 1:
        raise ValueError(f"batch_atoms must be at least 1, got {most}")
    group: list[int] = []
    atoms = 0
    for index, size in enumerate(sizes):
        if group and atoms + size > most:
            yield group
            group, atoms = [], 0
        group.append(index)
        atoms += size
    if group:
        yield group


def _one_pass(potential, group, first, forces, stress, device) -> list[Atoms]:
    try:
        seen = potential(Batch.from_atoms(group, device), forces=forces, stress=stress)
    except ValueError as error:
        if len(group) == 1:
            raise ValueError(f"structure {first}: {error}") from None
        return [
            done
            for place, atoms in enumerate(group)
            for done in _one_pass(
                potential, [atoms], first + place, forces, stress and has_volume(atoms), device
            )
        ]
    results, start = [], 0
    for place, atoms in enumerate(group):
        stop = start + len(atoms)
        values = {"energies": seen.energies[start:stop].detach().cpu().numpy()}
        values["energy"] = float(values["energies"].sum())
        values["free_energy"] = values["energy"]
        if forces and seen.forces is not None:
            values["forces"] = seen.forces[start:stop].detach().cpu().numpy()
        if stress and has_volume(atoms):
            values["stress"] = full_3x3_to_voigt_6_stress(seen.stress[place].cpu().numpy())
        done = atoms.copy()
        done.calc = SinglePointCalculator(done, **values)
        results.append(done)
        start = stop
    return results
