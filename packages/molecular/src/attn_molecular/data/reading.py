"""Structures with their labels, out of any file that holds some."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress

from ..graph import Batch, pairs_within

KCAL = 1 / 23.06052  # eV per kcal/mol
ENERGY_KEYS = ("energy", "REF_energy", "ref_energy", "free_energy", "dft_energy")
FORCES_KEYS = ("forces", "REF_forces", "ref_forces", "force", "dft_forces")
STRESS_KEYS = ("stress", "REF_stress", "ref_stress", "dft_stress")
VIRIAL_KEYS = ("virial", "virials", "REF_virial", "REF_virials", "dft_virial")


@dataclass(frozen=True)
class Frame:
    """One structure and what is known of it; NaN where something is not.

    Attributes:
        atoms: without calculator.
        energy: eV.
        forces: (atoms, 3) in eV/A, constraints not applied.
        stress: (3, 3) in eV/A^3, tension positive.
        group: frames of one group are never split.
    """

    atoms: Atoms
    energy: float
    forces: np.ndarray
    stress: np.ndarray
    group: str = ""


@dataclass(frozen=True)
class Keys:
    """Where labels are; None looks wherever ASE and common data sets put them.

    Args:
        energy: key in a structure's info or results.
        forces: key in its arrays or results.
        stress: key in its info or results: 3x3, 9 numbers or Voigt's 6 (xx, yy, zz, yz, xz, xy),
            in eV/A^3, tension positive.
        virial: key in its info: -stress * volume, in eV.
        group: key in its info that tells groups apart.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    virial: str | None = None
    group: str | None = None


@dataclass
class Report:
    """What was read and what was left out.

    Attributes:
        frames: read and usable.
        labels: frames with each label.
        found: names of arrays and info that were there.
        skipped: why, for each frame left out.
    """

    frames: int = 0
    labels: Counter = field(default_factory=Counter)
    found: Counter = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        labels = ", ".join(f"{self.labels[name]} {name}" for name in ("energy", "forces", "stress"))
        text = f"{self.frames} frames: {labels}"
        if self.skipped:
            shown = "; ".join(self.skipped[:5]) + ("; ..." if len(self.skipped) > 5 else "")
            text += f"; {len(self.skipped)} skipped: {shown}"
        return text


def read_frames(
    paths: Sequence[str | Path], keys: Keys = Keys(), *, trust_pickle: bool = False
) -> tuple[list[Frame], Report]:
    """Reads structures and labels.

    Args:
        paths: extxyz (also .gz), traj, ase.db, aselmdb, npz as in MD17 (R, z, E, F in kcal/mol),
            or whatever else ASE reads.
        keys: names of the labels.
        trust_pickle: whether LMDB files of pickles may be read. Reading a pickle runs code in it.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a label asked for by name is nowhere, a file cannot be read, or no frame of all
            is usable.

    Example:
        >>> from ase.build import molecule
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ase.io.write(f"{folder}/a.xyz", molecule("H2O"), format="extxyz")
        ...     frames, report = read_frames([f"{folder}/a.xyz"])
        >>> print(report)
        1 frames: 0 energy, 0 forces, 0 stress
    """
    report, frames = Report(), []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"no file {path}")
        for index, atoms in enumerate(_structures(path, trust_pickle)):
            where = f"{path.name}[{index}]"
            report.found.update(_names(atoms))
            try:
                frame = _frame(atoms, keys)
            except ValueError as error:
                report.skipped.append(f"{where}: {error}")
                continue
            frames.append(frame)
            report.frames += 1
            report.labels.update(
                name
                for name in ("energy", "forces", "stress")
                if np.isfinite(getattr(frame, name)).any()
            )
    _require_asked(keys, report)
    if not frames:
        why = f": {report.skipped[0]}" if report.skipped else ""
        raise ValueError(f"no usable frame in {', '.join(map(str, paths))}{why}")
    return frames, report


def _require_asked(keys: Keys, report: Report) -> None:
    asked = {"energy": keys.energy, "forces": keys.forces, "stress": keys.stress or keys.virial}
    for label, key in asked.items():
        if key is not None and not report.labels[label]:
            there = ", ".join(sorted(report.found)) or "nothing"
            raise ValueError(f"no frame has {label} under the key {key!r}; there is {there}")


def _structures(path: Path, trust_pickle: bool) -> Iterator[Atoms]:
    name = path.name.lower()
    if name.endswith(".npz"):
        found = _from_npz(path)
    elif name.endswith((".aselmdb", ".lmdb")):
        found = _from_lmdb(path, trust_pickle)
    else:
        kind = "extxyz" if name.removesuffix(".gz").endswith((".extxyz", ".xyz")) else None
        found = ase.io.iread(str(path), ":", format=kind)
    try:
        yield from found
    except Exception as error:  # readers raise whatever their format's parser does
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        told = str(error) or type(error).__name__
        raise ValueError(f"{path} cannot be read: {told}") from error


def _from_npz(path: Path) -> Iterator[Atoms]:
    with np.load(path, allow_pickle=False) as file:
        names = {name.lower(): name for name in file.files}

        def get(*choices: str) -> np.ndarray | None:
            found = next((names[c] for c in choices if c in names), None)
            return None if found is None else file[found]

        positions = get("r", "coords", "positions")
        numbers = get("z", "nuclear_charges", "numbers")
        energies, forces = get("e", "energies", "energy"), get("f", "forces")
    if positions is None or numbers is None:
        raise ValueError(f"{path} needs R (positions) and z (numbers); it has {list(names)}")
    for label, values in (("E", energies), ("F", forces)):
        if values is not None and len(values) != len(positions):
            raise ValueError(f"{path} has {len(positions)} structures and {len(values)} of {label}")
    for index, x in enumerate(positions):
        atoms = Atoms(numbers if numbers.ndim == 1 else numbers[index], x)
        if energies is not None:
            atoms.info["energy"] = float(np.ravel(energies)[index]) * KCAL
        if forces is not None:
            atoms.arrays["forces"] = forces[index] * KCAL
        yield atoms


def _from_lmdb(path: Path, trust_pickle: bool) -> Iterator[Atoms]:
    try:
        import lmdb
    except ImportError:
        raise ValueError(f"{path}: LMDB files need the extra [aselmdb] of this package") from None
    import json
    import zlib

    with (
        lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False) as env,
        env.begin() as view,
    ):
        cursor = view.cursor()
        keys = [key for key in cursor.iternext(values=False) if key.isdigit()]
        for key in sorted(keys, key=int):  # they lie in the order of their letters
            cursor.set_key(key)
            value = cursor.value()
            if path.suffix == ".aselmdb":
                yield _from_row(json.loads(zlib.decompress(value)))
            elif trust_pickle:
                import pickle

                yield _from_pickle(pickle.loads(value))
            else:
                raise ValueError(
                    f"{path} holds pickles, and reading a pickle runs code in it: "
                    f"pass trust_pickle if you trust the file"
                )


def _from_row(row: dict[str, Any]) -> Atoms:
    """A row as ASE's JSON encodes it."""
    from ase.io.jsonio import object_hook

    row = {k: object_hook(v) if isinstance(v, dict) else v for k, v in row.items()}
    atoms = Atoms(row["numbers"], row["positions"], cell=row.get("cell"), pbc=row.get("pbc", False))
    for name in ("energy", "stress"):
        if row.get(name) is not None:
            atoms.info[name] = row[name]
    if row.get("forces") is not None:
        atoms.arrays["forces"] = np.asarray(row["forces"])
    return atoms


def _from_pickle(sample: Any) -> Atoms:
    """A torch-geometric sample as OC20 stores it."""
    get = sample.get if isinstance(sample, dict) else lambda k, d=None: getattr(sample, k, d)
    cell = get("cell")
    atoms = Atoms(
        np.asarray(get("atomic_numbers")).astype(int),
        np.asarray(get("pos")),
        cell=None if cell is None else np.asarray(cell).reshape(3, 3),
        pbc=cell is not None,
    )
    energy = get("energy", get("y"))
    if energy is not None:
        atoms.info["energy"] = float(energy)
    forces = get("forces", get("force"))
    if forces is not None:
        atoms.arrays["forces"] = np.asarray(forces)
    return atoms


def _results(atoms: Atoms) -> dict[str, Any]:
    """What a calculator left, without constraints applied."""
    return dict(atoms.calc.results) if atoms.calc is not None else {}


def _names(atoms: Atoms) -> set[str]:
    return {*_results(atoms), *atoms.info, *atoms.arrays} - {"numbers", "positions"}


def _frame(atoms: Atoms, keys: Keys) -> Frame:
    """Checks a structure and takes its labels.

    Raises:
        ValueError: something is wrong with it, named.
    """
    wrong = (atoms.numbers < 1) | (atoms.numbers >= len(chemical_symbols))
    if wrong.any():
        raise ValueError(
            f"atom {int(np.argmax(wrong))} has atomic number {atoms.numbers[wrong][0]}"
        )
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    pairs_within(Batch.from_atoms([plain]), 1.0)  # positions, cell and overlaps
    energy = _label(atoms, keys.energy, ENERGY_KEYS)
    forces = _label(atoms, keys.forces, FORCES_KEYS)
    count = len(atoms)
    if energy is not None and np.size(energy) != 1:
        raise ValueError(f"energy has shape {np.shape(energy)}, it must be one number")
    if forces is not None and np.shape(forces) != (count, 3):
        raise ValueError(f"forces have shape {np.shape(forces)}, they must have ({count}, 3)")
    for name, value in (("energy", energy), ("forces", forces)):
        if value is not None and not np.isfinite(np.asarray(value, float)).all():
            raise ValueError(f"{name} has values that are not finite")
    return Frame(
        plain,
        float(np.ravel(energy)[0]) if energy is not None else np.nan,
        np.asarray(forces, float) if forces is not None else np.full((count, 3), np.nan),
        _stress(atoms, keys),
        str(atoms.info.get(keys.group, "")) if keys.group else "",
    )


def _label(atoms: Atoms, key: str | None, usual: Iterable[str]) -> Any:
    places = (_results(atoms), atoms.info, atoms.arrays)
    for name in (key,) if key is not None else usual:
        for place in places:
            if place.get(name) is not None:
                return place[name]
    return None


def _stress(atoms: Atoms, keys: Keys) -> np.ndarray:
    none = np.full((3, 3), np.nan)
    if keys.virial is None:
        value = _label(atoms, keys.stress, STRESS_KEYS)
        if value is not None:
            return _full(value, "stress")
        if keys.stress is not None:
            return none
    value = _label(atoms, keys.virial, VIRIAL_KEYS)
    if value is None:
        return none
    if not atoms.cell.rank == 3:
        raise ValueError("a virial without a cell of three vectors")
    return -_full(value, "virial") / atoms.get_volume()


def _full(value: Any, name: str) -> np.ndarray:
    value = np.asarray(value, float)
    if value.shape not in ((6,), (9,), (3, 3)):
        raise ValueError(f"{name} has shape {value.shape}; it must be (6,), (9,) or (3, 3)")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} has values that are not finite")
    return voigt_6_to_full_3x3_stress(value) if value.size == 6 else value.reshape(3, 3)
