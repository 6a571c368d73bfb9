"""Texts cut into windows of tokens."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


class Batch(NamedTuple):
    """Windows of one more token than is read: what follows each is to be predicted.

    Attributes:
        ids: (batch, context + 1), zeros where a window is shorter.
        lengths: tokens of each window.
    """

    ids: Tensor
    lengths: Tensor


class Windows(Dataset):
    """Windows of `context` tokens and the one after, each beginning where the one before ended.

    Every token but a text's first is predicted once.

    Args:
        ids: all texts' tokens, one text after the other; may be memory-mapped.
        ends: where each text ends; windows do not reach over it.
        context: tokens of a window that are read.

    Example:
        >>> windows = Windows(np.arange(6), [4, 6], context=2)
        >>> [windows[i].tolist() for i in range(len(windows))]
        [[0, 1, 2], [2, 3], [4, 5]]
    """

    def __init__(self, ids: np.ndarray, ends: Sequence[int], context: int):
        self.ids, self.context = ids, context
        spans = []
        for begin, end in zip([0, *ends], ends, strict=False):
            starts = np.arange(begin, max(end - 1, begin), context)
            stops = np.minimum(starts + context + 1, end)
            spans.append(np.stack((starts, stops), 1))
        self.spans = np.concatenate(spans) if spans else np.zeros((0, 2), int)

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: int) -> Tensor:
        start, stop = self.spans[index]
        return torch.from_numpy(self.ids[start:stop].astype(np.int64))


def collate(windows: list[Tensor], context: int) -> Batch:
    """One batch of windows."""
    ids = torch.zeros(len(windows), context + 1, dtype=torch.long)
    for row, window in zip(ids, windows, strict=True):
        row[: len(window)] = window
    return Batch(ids, torch.tensor([len(window) for window in windows]))


class Encoded(NamedTuple):
    """The tokens of texts.

    Attributes:
        ids: one text after the other.
        ends: where each ends.
        bytes: of the texts in UTF-8.
    """

    ids: np.ndarray
    ends: list[int]
    bytes: int


def encoded(texts: Iterable[str], encode) -> Encoded:
    """Encodes texts into memory."""
    parts, ends, size = [], [], 0
    for text in texts:
        parts.append(np.asarray(encode(text), dtype=np.int32))
        ends.append(len(parts[-1]) + (ends[-1] if ends else 0))
        size += len(text.encode())
    return Encoded(np.concatenate(parts) if parts else np.zeros(0, np.int32), ends, size)
