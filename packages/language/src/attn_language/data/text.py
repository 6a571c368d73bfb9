"""Texts for language models: the standard library's help topics, known sets, files of one's own."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from pytorch_lightning import LightningDataModule

from core_attn.training import loader

from ..tokens import Bytes, Characters, Learned, Tokenizer
from .windows import Batch, Encoded, Windows, collate, encoded

Kind = Literal["characters", "bytes", "bpe", "words"]
Part = Literal["train", "val", "test"]


class TextData(LightningDataModule, ABC):
    """Base of the texts that a language model reads.

    Args:
        tokenizer: what a token is: a character, a byte, a piece learned by BPE, or a word.
        vocab: ids of "bpe" and "words".
        tokenizer_file: takes the tokenizer from a file instead: of the tokenizers library
            (.json), a GGUF model, or a checkpoint.
        context: tokens of a window that are read.
        batch_size: windows per batch and process.
        documents: whether windows stop at the end of a document.
        seed: of the order.
    """

    def __init__(
        self,
        tokenizer: Kind = "characters",
        vocab: int = 1024,
        tokenizer_file: str | None = None,
        context: int = 128,
        batch_size: int = 32,
        documents: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        self.kind: Kind = tokenizer
        self.wanted_vocab, self.tokenizer_file = vocab, tokenizer_file
        self.context, self.batch_size = context, batch_size
        self.documents, self.seed = documents, seed
        self.tokenizer: Tokenizer | None = None
        self._parts: dict[Part, Encoded] = {}

    @abstractmethod
    def texts(self, part: Part) -> Iterable[str]:
        """The documents of a part."""

    def setup(self, stage: str) -> None:
        """Makes the tokenizer and encodes the parts of a stage.

        Raises:
            ValueError: a part is empty or shorter than two tokens, the training text shorter than
                a window, or has an unknown character.
        """
        if self.tokenizer is None:
            self.tokenizer = self._make_tokenizer()
        wanted: dict[str, list[Part]] = {"fit": ["train", "val"], "validate": ["val"]}
        for part in wanted.get(stage, ["test"]):
            if part not in self._parts:
                self._parts[part] = self._encode(part)

    def part(self, part: Part) -> Encoded:
        """The tokens of a part that `setup` encoded."""
        return self._parts[part]

    def bytes_per_token(self, part: Part) -> float:
        """UTF-8 bytes of a token, on average."""
        return self._parts[part].bytes / len(self._parts[part].ids)

    def _make_tokenizer(self) -> Tokenizer:
        if self.tokenizer_file is not None:
            from ..loading import load_tokenizer

            return load_tokenizer(self.tokenizer_file)
        if self.kind == "bytes":
            return Bytes()
        if self.kind == "characters":
            return Characters.of(text for p in ("train", "val", "test") for text in self.texts(p))
        if self.kind == "bpe":
            return Learned.bpe(self.texts("train"), self.wanted_vocab)
        return Learned.words(self.texts("train"), self.wanted_vocab, lower=False)

    def _encode(self, part: Part) -> Encoded:
        assert self.tokenizer is not None
        result = encoded(self.texts(part), self.tokenizer.encode)
        self._check(part, result)
        return result if self.documents else result._replace(ends=[len(result.ids)])

    def _check(self, part: Part, result: Encoded) -> None:
        tokens = len(result.ids)
        if tokens < 2:
            raise ValueError(f"the {part} text has {tokens} token(s); 2 are the least")
        if part == "train" and tokens <= self.context:
            raise ValueError(
                f"the {part} text has {tokens} tokens, a window of context {self.context} and the "
                f"token after it {self.context + 1}: lower --data.context"
            )

    def first_windows(self, count: int) -> Batch:
        """The first windows of the training text, in the text's order."""
        windows = self._windows("train")
        return collate([windows[i] for i in range(min(count, len(windows)))], self.context)

    def train_dataloader(self):
        """Windows of the training text, in a new order each epoch."""
        return self._loader("train", True)

    def val_dataloader(self):
        """Windows of the validation text."""
        return self._loader("val", False)

    def test_dataloader(self):
        """Windows of the test text."""
        return self._loader("test", False)

    predict_dataloader = test_dataloader

    def _windows(self, part: Part) -> Windows:
        text = self._parts[part]
        return Windows(text.ids, text.ends, self.context)

    def _loader(self, part: Part, shuffle: bool):
        return loader(
            self._windows(part), self.batch_size, shuffle=shuffle, seed=self.seed,
            collate_fn=partial(collate, context=self.context),
        )  # fmt: skip


def by_hash(text: str) -> Part:
    """The part of a document: eight tenths train, one validates, one tests; by its hash.

    Example:
        >>> by_hash("assert")
        'train'
    """
    tenth = int(hashlib.md5(text.encode()).hexdigest(), 16) % 10
    return "train" if tenth < 8 else "val" if tenth == 8 else "test"


class Topics(TextData):
    """The help topics of Python's standard library: 78 documents, nothing to download."""

    def texts(self, part: Part) -> list[str]:
        """Whole topics."""
        from pydoc_data.topics import topics

        texts = dict.fromkeys(text for _, text in sorted(topics.items()))  # two keys share one
        return [text for text in texts if by_hash(text) == part]


class Shakespeare(TextData):
    """tinyshakespeare: nine tenths train, the last tenth validates and tests.

    Args:
        path: the file.
        options: see `TextData`.
    """

    def __init__(
        self,
        path: str = "input.txt",
        tokenizer: Kind = "characters",
        vocab: int = 1024,
        tokenizer_file: str | None = None,
        context: int = 128,
        batch_size: int = 32,
        seed: int = 0,
    ):
        super().__init__(tokenizer, vocab, tokenizer_file, context, batch_size, False, seed)
        self.path = path

    def texts(self, part: Part) -> list[str]:
        """The part as one text."""
        text = read_text(self.path)
        cut = len(text) * 9 // 10
        return [text[:cut] if part == "train" else text[cut:]]


class WikiText2(TextData):
    """WikiText-2 in words. Only its validation and test texts are at hand: the first trains.

    Args:
        root: folder of wiki.valid.txt and wiki.test.txt; wiki.train.txt trains where it is there.
        vocab: words.
        context: tokens of a window that are read.
        batch_size: windows per batch and process.
        seed: of the order.
    """

    def __init__(
        self,
        root: str = "wikitext2",
        vocab: int = 8192,
        context: int = 64,
        batch_size: int = 32,
        seed: int = 0,
    ):
        super().__init__("words", vocab, None, context, batch_size, False, seed)
        self.root = Path(root).expanduser()

    def texts(self, part: Part) -> list[str]:
        """The part as one text, the end of a line as a word."""
        names = {"train": "train", "val": "valid", "test": "test"}
        if not (self.root / "wiki.train.txt").is_file():
            names = {"train": "valid", "val": "test", "test": "test"}
        return [read_text(self.root / f"wiki.{names[part]}.txt").replace("\n", " <eos> ")]


class TextFiles(TextData):
    """A text file, or a folder of them, read in pieces; its ids are kept in a file and mapped.

    The last tenths of each document validate and test, by bytes, cut at line ends, or between
    characters where lines are long.

    Args:
        path: the file, or a folder of files *.txt, each a document.
        cache: folder for the ids; the user's cache by default.
        tokenizer: see `TextData`, as the others.
        vocab: ids of "bpe" and "words".
        tokenizer_file: takes the tokenizer from a file instead.
        context: tokens of a window that are read.
        batch_size: windows per batch and process.
        documents: whether windows stop at the end of a file.
        seed: of the order.
    """

    def __init__(
        self,
        path: str,
        cache: str | None = None,
        tokenizer: Kind = "bytes",
        vocab: int = 1024,
        tokenizer_file: str | None = None,
        context: int = 128,
        batch_size: int = 32,
        documents: bool = False,
        seed: int = 0,
    ):
        super().__init__(tokenizer, vocab, tokenizer_file, context, batch_size, documents, seed)
        self.path = path
        root = cache or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        self.cache = Path(root).expanduser() / "attn_language"

    def files(self) -> list[Path]:
        """The documents.

        Raises:
            FileNotFoundError: there is nothing at the path.
            ValueError: a folder without text files, or an empty file.
        """
        path = Path(self.path).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"text {path}: no such file or folder")
        found = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"text {path}: the folder holds no .txt file")
        for file in found:
            if file.stat().st_size == 0:
                raise ValueError(f"text {file} is empty")
        return found

    def texts(self, part: Part) -> Iterator[str]:
        """Pieces of the part, of about a million bytes."""
        for file in self.files():
            yield from self._pieces(file, part)

    def _pieces(self, file: Path, part: Part) -> Iterator[str]:
        size = file.stat().st_size
        cuts = {"train": (0.0, 0.8), "val": (0.8, 0.9), "test": (0.9, 1.0)}
        with file.open("rb") as raw:
            at, last = (_cut(raw, size, int(size * share)) for share in cuts[part])
            while at < last:
                stop = min(_cut(raw, size, at + PIECE), last)
                raw.seek(at)
                yield _decoded(raw.read(stop - at), file)
                at = stop

    def _encode(self, part: Part) -> Encoded:
        assert self.tokenizer is not None
        files = self.files()
        key = json.dumps([
            [str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files
        ]) + f"{part} {PIECE}" + json.dumps(self.tokenizer.to_dict(), sort_keys=True)  # fmt: skip
        stem = self.cache / hashlib.sha256(key.encode()).hexdigest()[:24]
        ids, about = stem.with_suffix(".ids"), stem.with_suffix(".json")
        if not about.is_file():
            self._write(files, part, ids, about)
        told = json.loads(about.read_text())
        mapped = np.memmap(ids, np.int32, "r") if told["ends"][-1] else np.zeros(0, np.int32)
        result = Encoded(mapped, told["ends"], told["bytes"])
        self._check(part, result)
        return result if self.documents else result._replace(ends=[len(mapped)])

    def _write(self, files: list[Path], part: Part, ids: Path, about: Path) -> None:
        assert self.tokenizer is not None
        self.cache.mkdir(parents=True, exist_ok=True)
        scratch, ends, size, total = ids.with_suffix(f".{os.getpid()}.part"), [], 0, 0
        with scratch.open("wb") as out:
            for file in files:
                for text in self._pieces(file, part):
                    piece = np.asarray(self.tokenizer.encode(text), dtype=np.int32)
                    out.write(piece.tobytes())
                    total, size = total + len(piece), size + len(text.encode())
                ends.append(total)
        scratch.replace(ids)
        about.write_text(json.dumps({"ends": ends, "bytes": size}))


def read_text(path: str | Path) -> str:
    """A whole text file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, or no text.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"text {path}: no such file")
    return _decoded(path.read_bytes(), path)


PIECE = 1 << 20


def _cut(raw: BinaryIO, size: int, at: int) -> int:
    """Where to cut a file near a byte: after the next line end, or before the next character."""
    if not 0 < at < size:
        return max(0, min(at, size))
    raw.seek(at - 1)
    near = raw.read(min(PIECE, max(size // 20, 5)))
    line = near.find(b"\n") + 1
    if line and at - 1 + line < size:
        return at - 1 + line
    inside = (i for i, byte in enumerate(near[1:]) if byte & 0xC0 != 0x80)  # begins a character
    return at + next(inside, 0)


def _decoded(raw: bytes, file: Path) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"text {file} is no UTF-8 text") from None
    if not text:
        raise ValueError(f"text {file} is empty")
    return text
