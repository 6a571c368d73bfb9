"""Speech data for training: utterances in batches by frames, or segments of waveforms."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from core_attn.training import loader

from ..audio.features import MelFeatures
from ..text.front_end import FrontEnd, front_end
from ..text.symbols import Symbols
from .batching import Batches, Segments, collate_segments, frame_batches
from .clips import Preparation, Prepared, cache_folder, counted, prepare
from .sources import Source


class SpeechData(LightningDataModule):
    """Recordings with their texts, prepared once and kept in the user's cache.

    Args:
        source: where they come from.
        features: of the mels; their mean and deviation are measured on the training part.
        front_end: what pronounces the texts: "english", "characters" or "espeak".
        dictionary: a file of pronunciations for "english".
        frames_per_batch: the most frames of a batch, padding included.
        segment_frames: frames of a piece, for vocoders; 0 for whole utterances.
        segment_pad: frames more on either side of a piece.
        batch_size: pieces in a batch.
        valid: clips held out for validation; a share where below 1.
        test: clips held out for the test; likewise.
        min_seconds: shorter clips are refused.
        max_seconds: longer ones are.
        trim_db: how far below the loudest 10 ms the silence is that is cut off.
        loudness: decibels of full scale to which clips are brought.
        seed: of the order and of the parts.
        num_workers: processes that load ahead; 0 for none.
        cache: the folder that keeps what is prepared; the user's by default.

    Raises:
        ValueError: a size is out of range.
    """

    def __init__(
        self,
        source: Source,
        features: MelFeatures = MelFeatures(),  # noqa: B008
        front_end: Literal["english", "characters", "espeak"] = "english",
        dictionary: str | None = None,
        frames_per_batch: int = 6000,
        segment_frames: int = 0,
        segment_pad: int = 2,
        batch_size: int = 8,
        valid: float = 0.05,
        test: float = 0.05,
        min_seconds: float = 0.1,
        max_seconds: float = 20.0,
        trim_db: float = 40.0,
        loudness: float = -23.0,
        seed: int = 0,
        num_workers: int = 0,
        cache: str | None = None,
    ):
        super().__init__()
        for name, value in (("frames_per_batch", frames_per_batch), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, value in (
            ("valid", valid), ("test", test), ("segment_frames", segment_frames),
            ("segment_pad", segment_pad), ("num_workers", num_workers),
        ):  # fmt: skip
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        self.source = source
        self.preparation = Preparation(features, min_seconds, max_seconds, trim_db, loudness)
        self.front_end_name, self.dictionary = front_end, dictionary
        self.frames_per_batch, self.batch_size = frames_per_batch, batch_size
        self.segment_frames, self.segment_pad = segment_frames, segment_pad
        self.held_out = {"valid": valid, "test": test}
        self.seed, self.num_workers = seed, num_workers
        self.cache = Path(cache).expanduser() if cache else cache_folder()
        self.prepared: Prepared | None = None
        self.parts: dict[str, list[int]] = {}

    @cached_property
    def front_end(self) -> FrontEnd:
        """What pronounces the texts."""
        return front_end(self.front_end_name, self.dictionary)

    @property
    def symbols(self) -> Symbols:
        """What the tokens stand for."""
        return self.front_end.symbols

    @cached_property
    def features(self) -> MelFeatures:
        """Of the mels, with the mean and deviation of the training part."""
        clips = self._set_up()
        return self.preparation.features.fitted([clips[i].mel for i in self.parts["train"]])

    @property
    def longest(self) -> int:
        """Symbols of the longest text of the training part."""
        clips = self._set_up()
        return max(len(clips.rows[i]["tokens"]) for i in self.parts["train"])

    @property
    def speakers(self) -> list[str]:
        """Their names, in the order of their numbers."""
        return self._set_up().speakers

    def prepare_data(self) -> None:
        """Prepares the clips, in one process."""
        self._prepare()

    def setup(self, stage: str) -> None:
        """Divides the clips into parts, the same way each time, and says what there is."""
        if self.prepared is not None:
            return
        self.prepared = self._prepare()
        self._divide()
        rank_zero_only(print)(self.prepared.summary(type(self.source).__name__), flush=True)

    def leave_out_below(self, frames: int, what: str) -> None:
        """Leaves out clips that are too short for a model, and says so.

        Args:
            frames: the fewest that are of use.
            what: they are of the model, for the message.

        Raises:
            ValueError: no clip of the training part is left.
        """
        clips = self._set_up()
        short = {i for part in self.parts.values() for i in part if clips.frames(i) < frames}
        if not short:
            return
        self.parts = {
            part: [i for i in numbers if i not in short] for part, numbers in self.parts.items()
        }
        names = ", ".join(sorted(clips.rows[i]["name"] for i in short))
        line = f"refused {len(short)}: fewer frames than {what} {frames} ({names})"
        if not self.parts["train"]:
            raise ValueError(f"no clip is left to train on: {line}")
        rank_zero_only(print)(line, flush=True)

    def train_dataloader(self) -> Any:
        """Batches in an order given by seed and epoch."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> Any:
        """Batches in the order of their length."""
        return self._loader("valid", shuffle=False)

    def test_dataloader(self) -> Any:
        """Batches in the order of their length."""
        return self._loader("test", shuffle=False)

    def predict_dataloader(self) -> Any:
        """Those of the test."""
        return self.test_dataloader()

    def _prepare(self) -> Prepared:
        return prepare(
            self.source.clips(self.preparation.features.rate, self.cache),
            self.preparation,
            self.front_end,
            self.cache,
        )

    def _set_up(self) -> Prepared:
        if self.prepared is None:
            self.setup("fit")
        assert self.prepared is not None
        return self.prepared

    def _divide(self) -> None:
        clips = self._set_up()
        usable = [i for i in range(len(clips)) if clips.frames(i) <= self.frames_per_batch]
        too_long = [clips.rows[i]["name"] for i in range(len(clips)) if i not in set(usable)]
        if too_long:
            reason = f"more than frames_per_batch {self.frames_per_batch}"
            clips.refused[reason] = too_long
        if self.segment_frames:
            short = [i for i in usable if clips.frames(i) < self.segment_frames]
            if short:
                reason = f"shorter than a segment of {self.segment_frames} frames"
                clips.refused[reason] = [clips.rows[i]["name"] for i in short]
            usable = [i for i in usable if i not in set(short)]
        order = torch.randperm(len(usable), generator=torch.Generator().manual_seed(self.seed))
        order = [usable[i] for i in order.tolist()]
        start = 0
        for part, size in self.held_out.items():
            count = round(size * len(order)) if size < 1 else int(size)
            count = max(1, count) if size > 0 else 0
            self.parts[part] = sorted(order[start : start + count])
            start += count
        self.parts["train"] = sorted(order[start:])
        if not self.parts["train"]:
            raise ValueError(
                f"{len(order)} clips are of use, too few to hold out {self.held_out['valid']:g} "
                f"for validation and {self.held_out['test']:g} for the test"
                + (f"; refused {refused}" if (refused := counted(clips.refused)) else "")
            )

    def _loader(self, part: str, *, shuffle: bool) -> Any:
        clips = self._set_up()
        numbers = self.parts[part] or self.parts["train"]
        if self.segment_frames:
            silence = self.preparation.features.silence
            segments = Segments(clips, numbers, self.segment_frames, self.segment_pad, silence)
            return loader(
                segments, min(self.batch_size, len(segments)), shuffle=shuffle, seed=self.seed,
                drop_last=shuffle, num_workers=self.num_workers, collate_fn=collate_segments,
            )  # fmt: skip
        return loader(
            Batches(clips, self._numbers(numbers)), 1, shuffle=shuffle, seed=self.seed,
            num_workers=self.num_workers, collate_fn=_only,
        )  # fmt: skip

    @property
    def test_numbers(self) -> list[list[int]]:
        """The numbers of the clips in each batch of the test."""
        return self._numbers(self.parts["test"] or self.parts["train"])

    def _numbers(self, clips: list[int]) -> list[list[int]]:
        frames = [self._set_up().frames(i) for i in clips]
        return [[clips[i] for i in batch] for batch in frame_batches(frames, self.frames_per_batch)]


def _only(batches: list) -> Any:
    return batches[0]
