"""A trained voice: text in, sound out, with what was not said as it should be."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .audio.features import MelFeatures
from .metrics.alignment import reading
from .models.decoding import Decoded, DecodeOptions, Window, decode
from .models.transformer_tts import Speaker, TransformerTTS
from .text.front_end import FrontEnd, front_end
from .text.items import Phonemes, Unspoken, Word
from .text.script import Script, read, split
from .text.symbols import Symbols
from .vocoder import GriffinLim, Vocoder, load_vocoder

SIDE_BY_SIDE = 8


class Spoken(NamedTuple):
    """What a voice has said.

    Attributes:
        audio: in [-1, 1].
        rate: samples a second.
        phonemes: the symbols that were read.
        unspoken: pieces of the text that cannot be spoken, with their places.
        alignment: for each piece of the text, what each step of the decoder read of its symbols
            and its end.
        skipped: words that no step read.
        repeated: words that were read again after later ones.
        limited: whether some piece ran to its limit instead of ending by itself.
    """

    audio: Float[Tensor, " time"]
    rate: int
    phonemes: list[str]
    unspoken: list[Unspoken]
    alignment: list[Float[Tensor, "_steps _tokens"]]
    skipped: list[str]
    repeated: list[str]
    limited: bool


class Piece(NamedTuple):
    """What was said of one piece of a text; parts of `Spoken`."""

    audio: Float[Tensor, " time"]
    phonemes: list[str]
    alignment: Float[Tensor, "steps tokens"]
    skipped: list[str]
    repeated: list[str]
    limited: bool


class Voice:
    """A trained model with what its numbers mean.

    Args:
        model: in eval mode.
        features: of its mels.
        front_end: what turns text into symbols; with the model's own table.
        symbols: the table that the model was trained with.
        speakers: their names; one or none where the model has no table of them.
        alignment_head: layer and head that run along the text.
        longest: symbols of the longest text that the model has learned from; longer ones go piece
            by piece.
        vocoder: what makes sound of mels; Griffin-Lim by default.

    Raises:
        ValueError: the front end has another table, or the vocoder other mels.
    """

    def __init__(
        self,
        model: TransformerTTS,
        features: MelFeatures,
        front_end: FrontEnd,
        symbols: Symbols,
        *,
        speakers: list[str] | None = None,
        alignment_head: tuple[int, int] = (0, 0),
        longest: int = 150,
        vocoder: Vocoder | None = None,
    ):
        symbols.require(front_end.symbols)
        self.model, self.features, self.front_end = model.eval(), features, front_end
        self.speakers, self.alignment_head, self.longest = speakers or [], alignment_head, longest
        self.vocoder: Vocoder = vocoder or GriffinLim(features)
        features.require(self.vocoder.features, "the vocoder")

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self.features.rate

    def say(
        self,
        text: str,
        seed: int = 0,
        *,
        speaker: str | None = None,
        silence: float = 0.2,
        window: tuple[int, int] | None = None,
        options: DecodeOptions | None = None,
    ) -> Spoken:
        """Speaks a text; the same arguments give the same bytes.

        Args:
            text: of any length; it goes by sentences, where long by clauses, none is cut.
            seed: of what is random: the pre-net's dropout, and the vocoder's draws.
            speaker: a name, where the model has several.
            silence: seconds between pieces.
            window: symbols back and ahead that the head that runs along the text may read.
            options: when to stop.

        Raises:
            ValueError: the text has no word that can be spoken, or there is no such speaker.
        """
        script = read(text, self.front_end)
        pieces = list(
            self.pieces(script, text, seed, speaker=speaker, silence=silence, window=window,
                        options=options)
        )  # fmt: skip
        return Spoken(
            torch.cat([piece.audio for piece in pieces]),
            self.rate,
            script.tokens,
            list(script.unspoken),
            [piece.alignment for piece in pieces],
            list(dict.fromkeys(word for piece in pieces for word in piece.skipped)),
            list(dict.fromkeys(word for piece in pieces for word in piece.repeated)),
            any(piece.limited for piece in pieces),
        )

    def stream(
        self,
        text: str,
        seed: int = 0,
        *,
        speaker: str | None = None,
        silence: float = 0.2,
        window: tuple[int, int] | None = None,
        options: DecodeOptions | None = None,
    ) -> Iterator[Float[Tensor, " time"]]:
        """The samples of `say` in pieces, each as soon as it is there."""
        script = read(text, self.front_end)
        for piece in self.pieces(
            script, text, seed, speaker=speaker, silence=silence, window=window, options=options
        ):
            yield piece.audio

    def pieces(
        self,
        script: Script,
        text: str,
        seed: int,
        *,
        speaker: str | None,
        silence: float,
        window: tuple[int, int] | None,
        options: DecodeOptions | None,
    ) -> Iterator[Piece]:
        """Speaks a script: its first piece alone, so that it sounds early, others side by side."""
        if silence < 0:
            raise ValueError(f"silence must not be negative, got {silence}")
        number = self._speaker(speaker)
        speaker = speaker or next(iter(self.speakers), None)
        options = options or DecodeOptions()
        if window is not None:
            options = replace(options, window=Window(*self.alignment_head, *window))
        todo = list(enumerate(split(script, self.longest)))
        last, groups = len(todo) - 1, [todo[:1]]
        groups += [todo[i : i + SIDE_BY_SIDE] for i in range(1, len(todo), SIDE_BY_SIDE)]
        pause = torch.zeros(round(silence * self.rate))
        for group in groups:
            seeds = [(seed + 1_000_003 * i) % 2**63 for i, _ in group]
            decoded = self._decoded([piece for _, piece in group], seeds, number, options)
            mels = [self.features.restored(done.mel) for done in decoded]
            sounds = self.vocoder(mels, seeds, speaker)
            for (i, piece), done, sound in zip(group, decoded, sounds, strict=True):
                audio = sound / sound.abs().max().clamp(min=1.0)
                yield self._piece(piece, text, done, torch.cat([audio, pause][: 1 + (i < last)]))

    def _decoded(
        self, pieces: list[Script], seeds: list[int], speaker: int | None, options: DecodeOptions
    ) -> list[Decoded]:
        encode = self.front_end.symbols.encode
        tokens = [torch.tensor(encode(piece.tokens)) for piece in pieces]
        who = None if speaker is None else Speaker(torch.full((len(pieces),), speaker))
        return decode(
            self.model, pad_sequence(tokens, batch_first=True),
            torch.tensor([len(piece) for piece in tokens]), who, seeds=seeds, options=options,
        )  # fmt: skip

    def _piece(self, script: Script, text: str, done: Decoded, audio: Tensor) -> Piece:
        layer, head = self.alignment_head
        pattern = done.pattern[layer, head]
        read_words = reading(pattern, [word for _, word in script.owned()])
        names = [_shown(word, text) for word in script.words]
        return Piece(
            audio, script.tokens, pattern,
            [names[i] for i in read_words.skipped], [names[i] for i in read_words.repeated],
            done.limited,
        )  # fmt: skip

    def _speaker(self, name: str | None) -> int | None:
        if self.model.config.speakers == 0:
            if name is not None and name not in self.speakers:
                raise ValueError(f"speaker {name!r}: the model has one voice only")
            return None
        if name is None:
            return 0
        if name not in self.speakers:
            raise ValueError(f"no speaker {name!r}; there are {', '.join(self.speakers)}")
        return self.speakers.index(name)


def load(
    ckpt: str | Path,
    *,
    vocoder: str | Path | None = None,
    dictionary: Mapping[str, str] | str | Path | None = None,
) -> Voice:
    """The voice in a checkpoint.

    Args:
        ckpt: of Transformer TTS.
        vocoder: a checkpoint of WaveNet, trained on the same features; Griffin-Lim without.
        dictionary: pronunciations that come first, before those of the training.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a checkpoint, or the vocoder's mels are others.
    """
    from core_attn.training import opened

    from .tasks.synthesis import SpeechSynthesis

    task = opened(ckpt).task
    if not isinstance(task, SpeechSynthesis):
        raise ValueError(
            f"checkpoint {ckpt} is not that of a synthesizer, but {type(task).__name__}"
        )
    speaks = front_end(task.symbols.front_end, dictionary)
    if task.pronunciations:
        given = task.pronunciations | {word: " ".join(x) for word, x in speaks.known.items()}
        speaks = front_end(task.symbols.front_end, given)
    return Voice(
        task.model, task.features, speaks, task.symbols,
        speakers=task.speakers, alignment_head=task.alignment_head, longest=task.longest,
        vocoder=None if vocoder is None else load_vocoder(vocoder),
    )  # fmt: skip


def _shown(word: Word | Phonemes, text: str) -> str:
    """A word as it stands in the text, with its place."""
    return f"{text[word.start : word.stop]!r} at {word.start}"
