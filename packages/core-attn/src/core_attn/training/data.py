"""Data loading in an order given by seed and epoch alone, so that runs resume exactly."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset, DistributedSampler


def loader(
    dataset: Dataset,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int = 0,
    drop_last: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
    pin_memory: bool = False,
) -> "ResumableLoader":
    """A DataLoader whose order depends on (seed, epoch) only, and that continues mid-epoch.

    One process and several see the same global batches: batch i of n processes with batch size b
    holds the samples of batch i of one process with batch size n * b. Nothing is drawn from the
    global random state. With `num_workers=0` random augmentations resume exactly at any step;
    with workers, exactly at the end of an epoch, since workers' random states are not kept.

    Args:
        dataset: a data set with a length.
        batch_size: samples per batch and process.
        shuffle: a new order in each epoch; otherwise as stored.
        seed: of the order.
        drop_last: leave out the last, smaller batch.
        num_workers: processes that load ahead; 0 loads in this one.
        collate_fn: makes a batch of a list of samples; torch's default if None.
        pin_memory: page-locked batches, for CUDA.

    Raises:
        ValueError: the data set is empty, or too small for one batch with `drop_last`.

    Example:
        >>> batches = loader(range(5), batch_size=2, shuffle=False)
        >>> [batch.tolist() for batch in batches]
        [[0, 1], [2, 3], [4]]
        >>> batches.load_state_dict({"batches": 2})
        >>> [batch.tolist() for batch in batches]
        [[4]]
    """
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0:
        raise ValueError(f"dataset is empty: {type(dataset).__name__} has no samples")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    parallel = distributed.is_available() and distributed.is_initialized()
    world = distributed.get_world_size() if parallel else 1
    if drop_last and size < batch_size * world:
        raise ValueError(
            f"batch_size = {batch_size} in {world} process(es) exceeds the {size} samples of the "
            "data set, so that with drop_last no batch remains"
        )
    sampler = ResumableSampler(
        dataset,
        num_replicas=world,
        rank=distributed.get_rank() if parallel else 0,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
    )
    return ResumableLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_last,
        num_workers=num_workers,
        collate_fn=collate_fn,
        pin_memory=pin_memory,
        generator=torch.Generator(),
        persistent_workers=num_workers > 0,
    )


class ResumableSampler(DistributedSampler):
    """An order given by seed and epoch, of which the first `skip` samples can be left out once."""

    skip = 0

    def __iter__(self) -> Iterator[int]:
        skip, self.skip = self.skip, 0
        return islice(super().__iter__(), skip, None)


class ResumableLoader(DataLoader):
    """What `loader` returns; its state is the number of batches given out in this epoch."""

    _given = 0

    def __iter__(self) -> Iterator[Any]:
        # A generator, so that nothing starts before the trainer has set the sampler's epoch.
        if isinstance(self.sampler, ResumableSampler) and self.generator is not None:
            self._given = self.sampler.skip // (self.batch_size or 1)
            self.generator.manual_seed(hash((self.sampler.seed, self.sampler.epoch, self._given)))
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches of this epoch were given out."""
        return {"batches": self._given % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next iteration begin after the batches given out."""
        self.sampler.skip = state["batches"] * (self.batch_size or 1)  # type: ignore[union-attr]


def data_folder(path: str | Path, pattern: str = "*") -> Path:
    """Returns `path` once it is sure to be a folder that holds something.

    Args:
        path: the folder.
        pattern: what it must hold at least one of, as a glob: "*/*.png".

    Raises:
        FileNotFoundError: it does not exist.
        NotADirectoryError: it is a file.
        ValueError: nothing in it matches.

    Example:
        >>> data_folder("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: data folder no/such/folder does not exist
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"data folder {path} does not exist")
    if not path.is_dir():
        raise NotADirectoryError(f"data folder {path} is a file, not a folder")
    if next(path.glob(pattern), None) is None:
        raise ValueError(f"data folder {path} holds nothing that matches {pattern!r}")
    return path
