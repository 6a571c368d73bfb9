"""Step-by-step decoding of Transformer TTS, many texts at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core_attn import KeyValueCache, record

from .blocks import StepCache
from .transformer_tts import Speaker, TransformerTTS


@dataclass(frozen=True)
class Window:
    """Limits of one head's attention around the symbol it read at the step before.

    Attributes:
        layer: of the decoder.
        head: of its attention to the text; the one that runs along the diagonal.
        back: symbols behind that may be read.
        ahead: symbols ahead that may be read.

    Source: Ping et al., 2018, "Deep Voice 3", arXiv 1710.07654, section 3.7.
    """

    layer: int
    head: int
    back: int = 2
    ahead: int = 4

    def __post_init__(self):
        if self.back < 0 or self.ahead < 0:
            raise ValueError(
                f"a window reaches back and ahead by 0 or more, got {self.back}, {self.ahead}"
            )


@dataclass(frozen=True)
class DecodeOptions:
    """When to stop, and how to get there.

    Attributes:
        threshold: probability of being the last frame from which on one is.
        min_ratio: frames per symbol before which there is no stop.
        max_ratio: frames per symbol at which there is one.
        window: limits of an attention head; None for none.
        cached: whether keys and values of earlier steps are kept; the result is the same.
    """

    threshold: float = 0.5
    min_ratio: float = 0.0
    max_ratio: float = 10.0
    window: Window | None = None
    cached: bool = True

    def __post_init__(self):
        if not 0 <= self.min_ratio <= self.max_ratio or self.max_ratio <= 0:
            raise ValueError(
                f"ratios must be 0 <= min_ratio <= max_ratio, got {self.min_ratio}, "
                f"{self.max_ratio}"
            )


class Decoded(NamedTuple):
    """One text's decoding.

    Attributes:
        mel: frames with the post-net.
        before: frames without it.
        stop: the probability of each frame to be the last.
        pattern: what each step read of the text, whose last symbol is the end.
        limited: whether it ended at the limit instead of by its own decision.
    """

    mel: Float[Tensor, "frames mels"]
    before: Float[Tensor, "frames mels"]
    stop: Float[Tensor, " frames"]
    pattern: Float[Tensor, "layers heads steps tokens"]
    limited: bool


class Steps(nn.Module):
    """Encoder, decoder and post-net of the steps so far, as one function that can be exported.

    To speak, call it with one frame of zeros, then with the last frame of each step given so far
    behind that, until `stop` of the last step reaches 0.5; `after` of that call is the mel. What
    it computes is `decode` without kept keys and values.

    Args:
        model: in eval mode.
    """

    def __init__(self, model: TransformerTTS):
        super().__init__()
        self.model = model

    def forward(
        self,
        text: Int[Tensor, "batch tokens"],
        text_lengths: Int[Tensor, " batch"],
        frames: Float[Tensor, "batch steps mels"],
        factors: Float[Tensor, "batch steps units"] | None = None,
    ) -> tuple[
        Float[Tensor, "batch frames mels"],
        Float[Tensor, "batch frames mels"],
        Float[Tensor, "batch frames"],
    ]:
        """The mels without and with the post-net, and the probabilities of being the last frame.

        Args:
            text: symbols without the end symbol, padded with 0.
            text_lengths: of each row.
            frames: zeros, then the last frame of each step so far.
            factors: of the pre-net's dropout: 0 or 1 / (1 - rate); None for a rate of 0.
        """
        memory, lengths = self.model.encode(text, text_lengths)
        hidden = self.model.decoder(frames, memory, memory_lengths=lengths, factors=factors)
        before, stop_logits = self.model.frames(hidden)
        return before, self.model.refine(before), stop_logits.sigmoid()


@torch.no_grad()
def decode(
    model: TransformerTTS,
    text: Int[Tensor, "batch tokens"],
    text_lengths: Int[Tensor, " batch"],
    speaker: Speaker | None = None,
    *,
    seeds: Sequence[int] | None = None,
    options: DecodeOptions | None = None,
) -> list[Decoded]:
    """Decodes texts side by side; each leaves the batch when it is done.

    Args:
        model: in eval mode.
        text: symbols without the end symbol, padded with 0.
        text_lengths: symbols of each row.
        speaker: who speaks.
        seeds: of each row's pre-net dropout; 0 by default. Nothing else is random.
        options: when to stop, and how to get there.

    Raises:
        ValueError: the model is in training mode, or the inputs do not fit.

    Example:
        >>> from attn_speech.models import create
        >>> model = create("tts_tiny", vocabulary=9, mels=4).eval()
        >>> [done] = decode(model, torch.tensor([[1, 2, 3]]), torch.tensor([3]))
        >>> len(done.mel) == len(done.stop) > 0
        True
    """
    if model.training:
        raise ValueError("decode needs the model in eval mode: model.eval()")
    options = options or DecodeOptions()
    memory, lengths = model.encode(text, text_lengths, speaker)
    run = _Run(model, memory, lengths, list(seeds or [0] * len(text)), options)
    with record(model.decoder, "pattern", layers="blocks.*.cross") as seen:
        while run.rows:
            run.step(seen)
    return run.finish()


class _Run:
    """The rows still being decoded, and what all rows have given so far."""

    def __init__(
        self,
        model: TransformerTTS,
        memory: Tensor,
        lengths: Tensor,
        seeds: list[int],
        options: DecodeOptions,
    ):
        if len(seeds) != len(memory):
            raise ValueError(f"there are {len(seeds)} seeds for {len(memory)} texts")
        self.model, self.memory, self.lengths, self.options = model, memory, lengths, options
        r, count = model.config.reduction, len(memory)
        self.tokens = lengths.tolist()
        self.most = [max(1, int(n * options.max_ratio / r)) for n in self.tokens]
        self.least = [int(n * options.min_ratio / r) for n in self.tokens]
        self.rows = list(range(count))
        self.noise = model.decoder.noise(seeds)
        self.frame = memory.new_zeros(count, 1, model.config.mels)
        self.at = torch.zeros(count, dtype=torch.long, device=memory.device)
        self.given: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in self.rows]
        self.limited = [False] * count
        self.steps = 0
        self.history: list[tuple[Tensor, Tensor | None]] = []
        self.caches = None
        if options.cached:
            self.caches = [
                StepCache(KeyValueCache(max(self.most)), KeyValueCache(memory.shape[1]))
                for _ in model.decoder.blocks
            ]

    def step(self, seen) -> None:
        """One step of every row; those that are done leave."""
        hidden = self._hidden()
        before, logits = self.model.frames(hidden)
        stop = logits.sigmoid()
        pattern = torch.stack([x[:, :, -1] for x in seen.values()], 1)
        self.steps += 1
        for i, row in enumerate(self.rows):
            self.given[row].append((before[i], stop[i], pattern[i]))
        self.frame = before[:, -1:]
        if self.options.window is not None:
            self.at = pattern[:, self.options.window.layer, self.options.window.head].argmax(-1)
        self._leave(stop.amax(1).tolist())

    def _hidden(self) -> Tensor:
        factors = None if self.noise is None else self.noise.draw(1).to(self.frame)
        options = {"memory_lengths": self.lengths, "memory_masks": self._masks()}
        if self.caches is not None:
            return self.model.decoder(
                self.frame, self.memory, factors=factors, caches=self.caches, **options
            )
        self.history.append((self.frame, factors))
        frames, drawn = zip(*self.history, strict=True)
        factors = None if factors is None else torch.cat(drawn, 1)
        hidden = self.model.decoder(torch.cat(frames, 1), self.memory, factors=factors, **options)
        return hidden[:, -1:]

    def _masks(self) -> list[Bool[Tensor, "batch heads steps tokens"] | None] | None:
        window = self.options.window
        if window is None:
            return None
        if self.caches is None:
            raise ValueError("a window needs cached decoding: what was read depends on it")
        place = torch.arange(self.memory.shape[1], device=self.memory.device)
        away = place - self.at[:, None]
        allowed = (away >= -window.back) & (away <= window.ahead)
        mask = allowed.new_ones(len(allowed), self.model.config.heads, 1, allowed.shape[1])
        mask[:, window.head, 0] = allowed
        masks: list = [None] * self.model.config.decoder_depth
        masks[window.layer] = mask
        return masks

    def _leave(self, stop: list[float]) -> None:
        kept = []
        for i, row in enumerate(self.rows):
            wants = stop[i] >= self.options.threshold
            if self.steps < self.least[row] or not (wants or self.steps >= self.most[row]):
                kept.append(i)
            else:
                self.limited[row] = not wants
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[i] for i in kept]
        chosen = torch.tensor(kept, dtype=torch.long, device=self.memory.device)
        self.memory, self.lengths = self.memory[chosen], self.lengths[chosen]
        self.frame, self.at = self.frame[chosen], self.at[chosen]
        self.history = [
            (frame[chosen], None if factors is None else factors[chosen])
            for frame, factors in self.history
        ]
        if self.noise is not None:
            self.noise.select(kept)
        for cache in self.caches or ():
            cache.own.select(chosen)
            cache.memory.select(chosen)

    def finish(self) -> list[Decoded]:
        """What every row has given, with the post-net."""
        outputs = []
        for given, tokens, limited in zip(self.given, self.tokens, self.limited, strict=True):
            frames, stops, patterns = zip(*given, strict=True)
            before = torch.cat(frames)
            pattern = torch.stack(patterns, 2)[..., :tokens]
            outputs.append((before, torch.cat(stops), pattern, limited))
        return [
            Decoded(after, before, stop, pattern, limited)
            for after, (before, stop, pattern, limited) in zip(
                self._refined([before for before, *_ in outputs]), outputs, strict=True
            )
        ]

    def _refined(self, mels: list[Tensor]) -> list[Tensor]:
        if not self.model.config.mask_padding:  # a row must not see its neighbours' padding
            return [self.model.refine(mel[None])[0] for mel in mels]
        lengths = torch.tensor([len(mel) for mel in mels], device=self.memory.device)
        padded = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True)
        refined = self.model.refine(padded, lengths)
        return [mel[:length] for mel, length in zip(refined, lengths.tolist(), strict=True)]
