"""Text to token ids and back: characters, bytes, or what the `tokenizers` library learns."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Model

UNKNOWN = "<unk>"


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back.

    Attributes:
        vocab: number of ids.
        ends: ids that end a text.
    """

    ends: tuple[int, ...]

    @property
    def vocab(self) -> int: ...  # noqa: D102

    def encode(self, text: str) -> list[int]: ...  # noqa: D102

    def decode(self, ids: Sequence[int]) -> str: ...  # noqa: D102

    def to_dict(self) -> dict[str, Any]: ...  # noqa: D102


class Characters:
    """One id per character, in the order of their code points.

    Args:
        symbols: the characters, each once.

    Example:
        >>> tokens = Characters.of("hello")
        >>> tokens.encode("hole"), tokens.decode([1, 0, 2])
        ([1, 3, 2, 0], 'hel')
    """

    ends = ()

    def __init__(self, symbols: str):
        if len(set(symbols)) < len(symbols) or not symbols:
            raise ValueError("symbols must be one or more characters, each once")
        self.symbols = symbols
        self._ids = {symbol: i for i, symbol in enumerate(symbols)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Characters":
        """For the characters that occur in texts, or in one."""
        symbols: set[str] = set()
        for text in texts:
            symbols.update(text)
        return cls("".join(sorted(symbols)))

    @property
    def vocab(self) -> int:
        """Number of characters."""
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """The ids of a text.

        Raises:
            ValueError: it has a character that is not in the vocabulary.
        """
        try:
            return [self._ids[symbol] for symbol in text]
        except KeyError as error:
            raise ValueError(
                f"character {error.args[0]!r} is not among the {self.vocab} of the vocabulary"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return "".join(self.symbols[i] for i in ids)

    def to_dict(self) -> dict[str, Any]:
        """What `tokenizer_from` makes it of again."""
        return {"kind": "characters", "symbols": self.symbols}


class Bytes:
    """One id per byte of UTF-8.

    Example:
        >>> Bytes().encode("é"), Bytes().decode([195, 169])
        ([195, 169], 'é')
    """

    vocab = 256
    ends = ()

    def encode(self, text: str) -> list[int]:
        """The bytes of a text."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bytes; what is no character becomes U+FFFD."""
        return bytes(ids).decode(errors="replace")

    def to_dict(self) -> dict[str, Any]:
        """What `tokenizer_from` makes it of again."""
        return {"kind": "bytes"}


class Learned:
    """A model of the `tokenizers` library: byte-level BPE, words, or one given as a file.

    Args:
        model: the library's tokenizer.
        ends: ids that end a text.

    Example:
        >>> bpe = Learned.bpe(["low lower lowest low"], vocab=260)
        >>> bpe.decode(bpe.encode("lower than")), bpe.vocab
        ('lower than', 260)
    """

    def __init__(self, model: Model, ends: Sequence[int] = ()):
        self.model, self.ends = model, tuple(ends)

    @classmethod
    def bpe(cls, texts: Iterable[str], vocab: int) -> "Learned":
        """Byte-level byte pair encoding learned from texts."""
        if vocab < 256:
            raise ValueError(f"vocab of BPE must be at least the 256 bytes, got {vocab}")
        model = Model(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore
        model.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab, initial_alphabet=alphabet, show_progress=False
        )
        model.train_from_iterator(texts, trainer)
        return cls(model)

    @classmethod
    def words(cls, texts: Iterable[str], vocab: int, lower: bool = True) -> "Learned":
        """The most frequent words of texts, and an id for all others.

        Args:
            texts: to count in.
            vocab: ids, that of unknown words among them.
            lower: whether case is ignored.

        Raises:
            ValueError: `vocab` has no room for a word.
        """
        if vocab < 2:
            raise ValueError(f"vocab of words must be at least 2, got {vocab}")
        model = Model(models.WordLevel({UNKNOWN: 0}, unk_token=UNKNOWN))
        if lower:
            model.normalizer = normalizers.Lowercase()  # type: ignore[assignment]
        model.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")  # type: ignore
        trainer = trainers.WordLevelTrainer(
            vocab_size=vocab, special_tokens=[UNKNOWN], show_progress=False
        )
        model.train_from_iterator(texts, trainer)
        return cls(model)

    @property
    def vocab(self) -> int:
        """Number of ids."""
        return self.model.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return self.model.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return self.model.decode(list(ids), skip_special_tokens=False)

    def to_dict(self) -> dict[str, Any]:
        """What `tokenizer_from` makes it of again."""
        return {"kind": "learned", "model": self.model.to_str(), "ends": list(self.ends)}


def tokenizer_from(stored: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that `to_dict` described.

    Raises:
        ValueError: it is of an unknown kind.

    Example:
        >>> tokenizer_from(Characters("ab").to_dict()).encode("ba")
        [1, 0]
    """
    kind = stored.get("kind")
    if kind == "characters":
        return Characters(stored["symbols"])
    if kind == "bytes":
        return Bytes()
    if kind == "learned":
        return Learned(Model.from_str(stored["model"]), stored.get("ends", ()))
    raise ValueError(f"tokenizer of unknown kind {kind!r}")


def read_tokenizer(path: str | Path, ends: Sequence[int] = ()) -> Tokenizer:
    """A tokenizer in a file of the `tokenizers` library.

    Args:
        path: the file.
        ends: ids that end a text, which the file does not tell.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"tokenizer {path}: no such file")
    try:
        return Learned(Model.from_file(str(path)), ends)
    except Exception as error:  # the library raises nothing more precise
        raise ValueError(f"tokenizer {path} cannot be read: {error}") from None


def streamed(tokenizer: Tokenizer, ids: Iterable[int], before: Sequence[int] = ()) -> Iterator[str]:
    """Text as its tokens come; what ends inside a character waits for the rest of it.

    The parts together are the decoded whole.

    Args:
        tokenizer: of the ids.
        ids: of the text.
        before: ids that it follows, a few, which decide whether a space stands between.

    Example:
        >>> list(streamed(Bytes(), [104, 195, 169, 33]))
        ['h', 'é', '!']
    """
    seen = list(before)
    told = tokenizer.decode(seen)
    for i in ids:
        seen.append(i)
        text = tokenizer.decode(seen)
        if text.endswith("\ufffd") or not text.startswith(told):
            continue
        if len(text) > len(told):
            yield text[len(told) :]
            told = text
    rest = tokenizer.decode(seen)[len(told) :]
    if rest:
        yield rest


def until(stop: str, parts: Iterable[str]) -> Iterator[str]:
    """The text of parts as they come, up to where `stop` begins; what may begin it waits.

    Args:
        stop: one character or more, in one part or over several.
        parts: of the text; no more are taken once it has come.

    Example:
        >>> list(until("END", ["go ", "on E", "N", "D and on"]))
        ['go ', 'on ']
    """
    held = ""
    for part in parts:
        held += part
        found = held.find(stop)
        if found >= 0:
            if found:
                yield held[:found]
            return
        waits = next(n for n in range(len(stop) - 1, -1, -1) if held.endswith(stop[:n]))
        if len(held) > waits:
            yield held[: len(held) - waits]
            held = held[len(held) - waits :]
    if held:
        yield held
