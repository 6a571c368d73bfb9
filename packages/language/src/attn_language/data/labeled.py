"""Labeled texts for classifiers: planted topics, review snippets, a table of one's own."""

import csv
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from core_attn.training import loader

from ..tokens import Learned, Tokenizer
from .text import Part, by_hash


class LabeledBatch(NamedTuple):
    """Texts with their labels.

    Attributes:
        ids: (batch, tokens), zeros at padding.
        lengths: tokens of each.
        labels: classes.
    """

    ids: Tensor
    lengths: Tensor
    labels: Tensor


class LabeledText(LightningDataModule, ABC):
    """Base of labeled texts: lower-case words, split by a hash of each text.

    Args:
        vocab: the most frequent words that have ids.
        longest: words read of a text.
        batch_size: texts per batch and process.
        seed: of the order.
    """

    classes: list[str]

    def __init__(self, vocab: int = 8192, longest: int = 256, batch_size: int = 32, seed: int = 0):
        super().__init__()
        if longest < 1:
            raise ValueError(f"longest must be at least 1, got {longest}")
        self.wanted_vocab, self.longest = vocab, longest
        self.batch_size, self.seed = batch_size, seed
        self.tokenizer: Tokenizer | None = None
        self.classes = []
        self.rows: dict[Part, list[tuple[str, int]]] = {}

    @abstractmethod
    def labeled(self) -> list[tuple[str, str]]:
        """All texts with the names of their classes."""

    def setup(self, stage: str) -> None:
        """Splits the texts and numbers words and classes."""
        if self.rows:
            return
        rows = [(tidy(text), label) for text, label in self.labeled()]
        self.classes = sorted({label for _, label in rows})
        if len(self.classes) < 2:
            raise ValueError(f"{len(self.classes)} class(es) in the texts; 2 are the least")
        self.rows = {"train": [], "val": [], "test": []}
        for text, label in rows:
            self.rows[by_hash(text)].append((text, self.classes.index(label)))
        for part, chosen in self.rows.items():
            if not chosen:
                raise ValueError(f"no text of {len(rows)} falls into the {part} part")
        if self.tokenizer is None:
            texts = (text for text, _ in self.rows["train"])
            self.tokenizer = Learned.words(texts, self.wanted_vocab)

    def train_dataloader(self):
        """The training texts, in a new order each epoch."""
        return self._loader("train", True)

    def val_dataloader(self):
        """The validation texts."""
        return self._loader("val", False)

    def test_dataloader(self):
        """The test texts."""
        return self._loader("test", False)

    predict_dataloader = test_dataloader

    def _loader(self, part: Part, shuffle: bool):
        assert self.tokenizer is not None
        encode = self.tokenizer.encode
        rows = [(encode(text)[: self.longest], label) for text, label in self.rows[part]]
        return loader(
            rows, self.batch_size, shuffle=shuffle, seed=self.seed,  # type: ignore[arg-type]
            collate_fn=collate_labeled,
        )  # fmt: skip


def tidy(text: str) -> str:
    """Words and signs with one space between.

    Example:
        >>> tidy("Don't stop!")
        "Don't stop !"
    """
    return " ".join(re.findall(r"\w+(?:'\w+)?|[^\w\s]", text))


def collate_labeled(rows: list[tuple[list[int], int]]) -> LabeledBatch:
    """One batch of texts."""
    longest = max(max(len(ids) for ids, _ in rows), 1)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    for row, (text, _) in zip(ids, rows, strict=True):
        row[: len(text)] = torch.tensor(text, dtype=torch.long)
    lengths, labels = zip(*((len(text), label) for text, label in rows), strict=True)
    return LabeledBatch(ids, torch.tensor(lengths), torch.tensor(labels))


class TopicParagraphs(LabeledText):
    """Which help topic of the standard library a paragraph comes from.

    Args:
        topics: how many, the longest ones.
        vocab: see `LabeledText`, as the others.
        longest: words read of a text.
        batch_size: texts per batch and process.
        seed: of the order.
    """

    def __init__(
        self,
        topics: int = 6,
        vocab: int = 2048,
        longest: int = 128,
        batch_size: int = 32,
        seed: int = 0,
    ):
        super().__init__(vocab, longest, batch_size, seed)
        if topics < 2:
            raise ValueError(f"topics must be at least 2, got {topics}")
        self.topics = topics

    def labeled(self) -> list[tuple[str, str]]:
        """Paragraphs of five words or more."""
        from pydoc_data.topics import topics

        chosen = sorted(topics, key=lambda key: (-len(topics[key]), key))[: self.topics]
        return [
            (paragraph, key)
            for key in chosen
            for paragraph in topics[key].split("\n\n")
            if len(paragraph.split()) >= 5
        ]


class Reviews(LabeledText):
    """rt-polarity: review snippets, positive or negative.

    Args:
        root: folder of rt-polarity.pos and rt-polarity.neg.
        vocab: see `LabeledText`, as the others.
        longest: words read of a text.
        batch_size: texts per batch and process.
        seed: of the order.
    """

    def __init__(
        self,
        root: str = "rt_polarity",
        vocab: int = 16384,
        longest: int = 64,
        batch_size: int = 32,
        seed: int = 0,
    ):
        super().__init__(vocab, longest, batch_size, seed)
        self.root = Path(root).expanduser()

    def labeled(self) -> list[tuple[str, str]]:
        """The snippets, one a line."""
        rows = []
        for label, name in (("negative", "neg"), ("positive", "pos")):
            path = self.root / f"rt-polarity.{name}"
            if not path.is_file():
                raise FileNotFoundError(f"reviews {path}: no such file")
            raw = path.read_bytes()
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                text = raw.decode("latin-1")
            rows += [(line, label) for line in text.splitlines() if line.strip()]
        return rows


class LabeledTable(LabeledText):
    """A CSV file with a column of texts and one of labels.

    Args:
        path: the file, with a header.
        text: the column of texts.
        label: the column of labels.
        vocab: see `LabeledText`, as the others.
        longest: words read of a text.
        batch_size: texts per batch and process.
        seed: of the order.
    """

    def __init__(
        self,
        path: str,
        text: str = "text",
        label: str = "label",
        vocab: int = 8192,
        longest: int = 256,
        batch_size: int = 32,
        seed: int = 0,
    ):
        super().__init__(vocab, longest, batch_size, seed)
        self.path, self.text, self.label = path, text, label

    def labeled(self) -> list[tuple[str, str]]:
        """The rows of the file."""
        path = Path(self.path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"table {path}: no such file")
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                table = csv.DictReader(file)
                columns = table.fieldnames or []
                for name in (self.text, self.label):
                    if name not in columns:
                        known = ", ".join(columns) or "none"
                        raise ValueError(f"table {path} has no column {name!r}; it has {known}")
                rows = [(row[self.text] or "", row[self.label]) for row in table]
        except UnicodeDecodeError:
            raise ValueError(f"table {path} is no UTF-8 text") from None
        for number, (_, label) in enumerate(rows, 1):
            if not label:
                raise ValueError(f"table {path}: row {number} has no {self.label}")
        return rows
