"""Data loading in an order given by seed and epoch alone, so that runs resume exactly."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset


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
    repeats: int = 1,
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
        repeats: how often a sample stands in a shuffled epoch, one time after the other, so that
            processes get different ones; the epoch keeps its length and holds a part of the set.

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
        batch_size,
        num_replicas=world,
        rank=distributed.get_rank() if parallel else 0,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        repeats=repeats,
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


class Order(Protocol):
    """An order that depends on a seed and an epoch only, and can be begun after some batches.

    Attributes:
        seed: of the order.
        epoch: which order; the trainer sets it through `set_epoch`.
        skip: batches left out at the front.
    """

    seed: int
    epoch: int
    skip: int


class ResumableSampler(DistributedSampler):
    """The `Order` of a data set with a length, dealt to all processes.

    Shuffled, every process gets equally many samples, some of them twice where they do not divide.
    As stored, every sample is given out once, so that what is measured counts it once.
    """

    skip = 0

    def __init__(self, dataset: Dataset, batch_size: int, repeats: int = 1, **options: Any):
        super().__init__(dataset, **options)
        self.batch_size, self.repeats = batch_size, repeats
        if not self.shuffle:
            self.num_samples = len(range(self.rank, self._size, self.num_replicas))

    @property
    def _size(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        order = super().__iter__() if self.shuffle else self._as_stored()
        if self.shuffle and self.repeats > 1:
            order = self._repeated()
        return islice(order, self.skip * self.batch_size, None)

    def _repeated(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self._size, generator=generator).repeat_interleave(self.repeats)
        return iter(order[: self.total_size][self.rank :: self.num_replicas].tolist())

    def _as_stored(self) -> Iterator[int]:
        return iter(range(self.rank, self._size, self.num_replicas))


class ResumableLoader(DataLoader):
    """A loader whose state is the number of batches given out in the epoch.

    What `loader` returns, and `StreamLoader`; the trainer saves the state in every checkpoint and
    gives it back before the first batch of a resumed run.
    """

    _given = _skip = 0

    @property
    def order(self) -> Order | None:
        """What begins where it is told; None where the trainer put a sampler of its own."""
        return self.sampler if isinstance(self.sampler, ResumableSampler) else None

    def __iter__(self) -> Iterator[Any]:
        # A generator, so that nothing starts before the trainer has set the epoch and the state.
        self._given, self._skip = self._skip, 0
        if (order := self.order) is not None and self.generator is not None:
            order.skip = self._given
            self.generator.manual_seed(hash((order.seed, order.epoch, self._given)))
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches of this epoch were given out."""
        return {"batches": self._given % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next iteration begin after the batches given out."""
        self._skip = state["batches"]


class Stream(IterableDataset, ABC):
    """An `Order` that makes its batches itself, as one that reads files front to back.

    `__iter__` yields the batches of `epoch` after the first `skip`, as they are in this process and
    this worker (`torch.utils.data.get_worker_info`).

    Args:
        seed: of the order.
    """

    def __init__(self, seed: int = 0):
        self.seed, self.epoch, self.skip = seed, 0, 0

    @abstractmethod
    def batches(self, workers: int) -> int:
        """Batches of an epoch in this process, read by 1 or more workers; in training as many in
        every process."""

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch that decides the order."""
        self.epoch = epoch


class StreamLoader(ResumableLoader):
    """Loads a `Stream`, with workers that read ahead.

    Args:
        dataset: the stream.
        num_workers: processes that read ahead; 0 reads in this one.

    Example:
        >>> class Squares(Stream):
        ...     def __iter__(self):
        ...         yield from [torch.tensor([i * i]) for i in range(self.skip, 4)]
        ...     def batches(self, workers):
        ...         return 4
        >>> batches = StreamLoader(Squares())
        >>> batches.load_state_dict({"batches": 2})
        >>> [batch.item() for batch in batches]
        [4, 9]
    """

    dataset: Stream

    def __init__(self, dataset: Stream, num_workers: int = 0):
        own = torch.Generator()  # draws nothing from the global random state
        super().__init__(dataset, batch_size=None, num_workers=num_workers, generator=own)
        # The trainer tells the epoch to samplers only, and torch makes that of a stream.
        self.sampler.set_epoch = dataset.set_epoch  # type: ignore[attr-defined]

    @property
    def order(self) -> Order:
        """The stream."""
        return self.dataset

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch that decides the order."""
        self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return self.dataset.batches(max(self.num_workers, 1))

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            yield batch
            if self._given >= len(self):
                break


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
