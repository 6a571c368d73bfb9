"""Labelled structures from files, split and batched."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from ase.data import atomic_numbers
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from core_attn.training import loader

from ..prediction import fill_by_atoms
from .labelled import Labelled, fit_references, force_scale, references_from
from .reading import Frame, Keys, read_frames


class StructureData(LightningDataModule):
    """Labelled frames in three parts; a subclass implements `load`.

    Args:
        batch_size: structures in a batch.
        batch_atoms: the most atoms in a batch, instead of `batch_size`; batches then keep their
            structures from epoch to epoch.
        validation: share of the training frames held out to validate on; groups stay whole.
        references: "fit" by least squares, "isolated" from `isolated_energies`, or "none".
        isolated_energies: eV of single atoms by symbol; filled from frames of one atom.
        num_workers: processes that load.
        seed: of the hold-out and of the order.
    """

    def __init__(
        self,
        batch_size: int,
        batch_atoms: int | None,
        validation: float,
        references: Literal["fit", "isolated", "none"],
        isolated_energies: dict[str, float] | None,
        num_workers: int,
        seed: int,
    ):
        super().__init__()
        if not 0 < validation < 1:
            raise ValueError(f"validation must be in (0, 1), got {validation}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.batch_size, self.batch_atoms, self.validation = batch_size, batch_atoms, validation
        self.references, self.num_workers, self.seed = references, num_workers, seed
        self.isolated = dict(isolated_energies or {})
        self.train_frames: list[Frame] = []

    def load(self) -> tuple[list[Frame], list[Frame]]:
        """Frames to train and validate on, and frames to test on."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Reads and splits."""
        if self.train_frames:
            return
        frames, self.test_frames = self.load()
        for frame in frames:
            if len(frame.atoms) == 1 and not frame.atoms.pbc.any() and np.isfinite(frame.energy):
                self.isolated.setdefault(frame.atoms.get_chemical_symbols()[0], frame.energy)
        self.train_frames, self.validation_frames = self._split(frames)

    def statistics(self, elements: int) -> tuple[torch.Tensor, float, list[int]]:
        """References (elements) in eV, scale in eV/A, and the elements seen; from training frames.

        Raises:
            ValueError: an element's isolated energy is missing.
        """
        numbers = sorted({int(z) for frame in self.train_frames for z in frame.atoms.numbers})
        if self.references == "fit":
            references = fit_references(self.train_frames, elements)
        elif self.references == "isolated":
            given = {atomic_numbers[symbol]: energy for symbol, energy in self.isolated.items()}
            missing = [z for z in numbers if z not in given]
            if missing:
                raise ValueError(
                    f"no isolated energy for Z={missing}; have {', '.join(self.isolated) or 'none'}"
                )
            references = references_from(given, elements)
        else:
            references = references_from({}, elements)
        return references, force_scale(self.train_frames, references), numbers

    def train_dataloader(self) -> DataLoader:
        """Training frames in random order."""
        return self._batches(self.train_frames, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Frames held out."""
        return self._batches(self.validation_frames, shuffle=False)

    def test_dataloader(self) -> DataLoader:
        """Test frames."""
        return self._batches(self.test_frames, shuffle=False)

    def predict_dataloader(self) -> DataLoader:
        """Test frames."""
        return self.test_dataloader()

    def _batches(self, frames: list[Frame], *, shuffle: bool) -> DataLoader:
        if self.batch_atoms is None:
            return loader(
                frames, self.batch_size, shuffle=shuffle, seed=self.seed,  # pyright: ignore[reportArgumentType]
                num_workers=self.num_workers, collate_fn=Labelled.of,
            )  # type: ignore[arg-type]  # fmt: skip
        if shuffle:
            order = torch.randperm(
                len(frames), generator=torch.Generator().manual_seed(self.seed)
            ).tolist()
            frames = [frames[i] for i in order]
        groups = fill_by_atoms([len(frame.atoms) for frame in frames], self.batch_atoms)
        batches = [[frames[i] for i in group] for group in groups]
        return loader(
            batches, 1, shuffle=shuffle, seed=self.seed, num_workers=self.num_workers,  # pyright: ignore[reportArgumentType]
            collate_fn=_only,
        )  # type: ignore[arg-type]  # fmt: skip

    def _split(self, frames: list[Frame]) -> tuple[list[Frame], list[Frame]]:
        names = [frame.group or f"frame {i}" for i, frame in enumerate(frames)]
        groups = list(dict.fromkeys(names))
        order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(self.seed))
        kept = max(1, round(self.validation * len(groups)))
        if kept >= len(groups):
            raise ValueError(f"{len(groups)} group(s) of frames cannot be split in two")
        held = {groups[i] for i in order[:kept]}
        parts: tuple[list[Frame], list[Frame]] = ([], [])
        for name, frame in zip(names, frames, strict=True):
            parts[name in held].append(frame)
        return parts


class Structures(StructureData):
    """Frames from files: extxyz (also .gz), traj, ase.db, aselmdb, npz, and what else ASE reads.

    Args:
        train: files to train and validate on, relative to `root`.
        test: files to test on; the validation frames where there is none.
        root: a folder.
        isolated: a file with single atoms, for references "isolated".
        limit: the most training frames, evenly spaced; None for all.
        energy_key: name of the energy; None looks in the usual places.
        forces_key: likewise of the forces.
        stress_key: likewise of the stress: eV/A^3, tension positive; 3x3, 9 or Voigt's 6 numbers.
        virial_key: name of the virial, -stress * volume in eV, instead of a stress.
        group_key: name in a frame's info; frames with equal values stay in one part.
        trust_pickle: whether LMDB files of pickles may be read, which runs code in them.
        batch_size: structures in a batch.
        batch_atoms: the most atoms in a batch, instead of `batch_size`.
        validation: share of the training frames to validate on.
        references: "fit" by least squares, "isolated", or "none".
        isolated_energies: eV of single atoms by symbol.
        num_workers: processes that load.
        seed: of the hold-out and of the order.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: as `read_frames`.
    """

    def __init__(
        self,
        train: list[str],
        test: list[str] | None = None,
        root: str = ".",
        isolated: str | None = None,
        limit: int | None = None,
        energy_key: str | None = None,
        forces_key: str | None = None,
        stress_key: str | None = None,
        virial_key: str | None = None,
        group_key: str | None = None,
        trust_pickle: bool = False,
        batch_size: int = 10,
        batch_atoms: int | None = None,
        validation: float = 0.05,
        references: Literal["fit", "isolated", "none"] = "fit",
        isolated_energies: dict[str, float] | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(
            batch_size, batch_atoms, validation, references, isolated_energies, num_workers, seed
        )
        self.files = {"train": train, "test": test or []}
        self.root, self.isolated_file, self.limit = Path(root).expanduser(), isolated, limit
        self.keys = Keys(energy_key, forces_key, stress_key, virial_key, group_key)
        self.trust_pickle = trust_pickle

    def load(self) -> tuple[list[Frame], list[Frame]]:
        """Reads the files and says what is in them."""
        if self.isolated_file is not None:
            atoms, _ = read_frames([self.root / self.isolated_file], self.keys)
            for frame in atoms:
                if len(frame.atoms) != 1 or not np.isfinite(frame.energy):
                    raise ValueError(
                        f"{self.isolated_file}: {frame.atoms.symbols} is no single atom with an "
                        f"energy"
                    )
                self.isolated.setdefault(frame.atoms.get_chemical_symbols()[0], frame.energy)
        train = self._read("train")
        if self.limit is not None and self.limit < len(train):
            chosen = np.linspace(0, len(train) - 1, self.limit).round().astype(int)
            train = [train[i] for i in chosen]
        return train, self._read("test") if self.files["test"] else []

    def setup(self, stage: str | None = None) -> None:
        """Reads and splits; without test files, tests on the validation frames."""
        super().setup(stage)
        self.test_frames = self.test_frames or self.validation_frames

    def _read(self, part: Literal["train", "test"]) -> list[Frame]:
        paths: Sequence[Path] = [self.root / name for name in self.files[part]]
        frames, report = read_frames(paths, self.keys, trust_pickle=self.trust_pickle)
        print(f"{part}: {report}", flush=True)
        return frames


def _only(groups: list[list[Frame]]) -> Labelled:
    return Labelled.of(groups[0])
