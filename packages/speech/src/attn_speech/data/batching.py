"""Utterances in batches of about as many frames, and waveforms in segments."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from ..models.transformer_tts import Speaker
from .clips import Prepared, Utterance


class SpeechBatch(NamedTuple):
    """Utterances side by side, padded with 0.

    Attributes:
        text: symbols.
        text_lengths: of each row.
        mels: log mels.
        mel_lengths: of each row.
        speakers: numbers, of each row.
    """

    text: Int[Tensor, "batch tokens"]
    text_lengths: Int[Tensor, " batch"]
    mels: Float[Tensor, "batch frames mels"]
    mel_lengths: Int[Tensor, " batch"]
    speakers: Int[Tensor, " batch"]

    def speaker(self, is_asked_for: bool) -> Speaker | None:
        """Who speaks, for a model that asks."""
        return Speaker(self.speakers) if is_asked_for else None


class SegmentBatch(NamedTuple):
    """Pieces of waveforms with their frames.

    Attributes:
        audio: in [-1, 1].
        mels: log mels, with more of them on either side.
        speakers: numbers, of each row.
    """

    audio: Float[Tensor, "batch time"]
    mels: Float[Tensor, "batch mels frames"]
    speakers: Int[Tensor, " batch"]


def frame_batches(frames: Sequence[int], cap: int) -> list[list[int]]:
    """Numbers of utterances in batches of which none has more than `cap` frames with padding.

    Args:
        frames: of each utterance.
        cap: frames of a batch.

    Raises:
        ValueError: an utterance alone has more.

    Example:
        >>> frame_batches([5, 2, 3, 9], cap=10)
        [[1, 2], [0], [3]]
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(frames)), key=lambda i: frames[i]):
        if frames[i] > cap:
            raise ValueError(f"utterance {i} has {frames[i]} frames, more than a batch's {cap}")
        if batches and (len(batches[-1]) + 1) * frames[i] <= cap:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def collate(utterances: Sequence[Utterance]) -> SpeechBatch:
    """Puts utterances side by side."""
    return SpeechBatch(
        pad_sequence([u.tokens for u in utterances], batch_first=True),
        torch.tensor([len(u.tokens) for u in utterances]),
        pad_sequence([u.mel for u in utterances], batch_first=True),
        torch.tensor([len(u.mel) for u in utterances]),
        torch.tensor([u.speaker for u in utterances]),
    )


class Batches(Dataset):
    """Batches of utterances; a sample is a batch.

    Args:
        clips: to take them from.
        numbers: of the clips in each batch.
    """

    def __init__(self, clips: Prepared, numbers: Sequence[Sequence[int]]):
        self.clips, self.numbers = clips, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> SpeechBatch:
        return collate([self.clips[number] for number in self.numbers[i]])


class Segments(Dataset):
    """Pieces of equal length of some clips; a clip's last frames that fill none are left out.

    Args:
        clips: to take them from.
        numbers: of the clips.
        frames: of a piece.
        pad: frames more on either side; zeros of amplitude beyond the ends.
        silence: its log mel.
    """

    def __init__(
        self, clips: Prepared, numbers: Sequence[int], frames: int, pad: int, silence: float
    ):
        self.clips, self.frames, self.pad, self.silence = clips, frames, pad, silence
        self.places = [
            (number, start)
            for number in numbers
            for start in range(0, clips.frames(number) - frames + 1, frames)
        ]
        self.too_short = [
            clips.rows[number]["name"] for number in numbers if clips.frames(number) < frames
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, int]:
        number, start = self.places[i]
        utterance, hop = self.clips[number], self.clips.hop
        mel = padded(utterance.mel, self.pad, self.silence)
        return (
            utterance.audio[start * hop : (start + self.frames) * hop],
            mel[start : start + self.frames + 2 * self.pad].T,
            utterance.speaker,
        )


def collate_segments(samples: Sequence[tuple[Tensor, Tensor, int]]) -> SegmentBatch:
    """Puts pieces side by side."""
    audio, mels, speakers = zip(*samples, strict=True)
    return SegmentBatch(torch.stack(audio), torch.stack(mels), torch.tensor(speakers))


def padded(
    mel: Float[Tensor, "frames mels"], pad: int, silence: float
) -> Float[Tensor, "more_frames mels"]:
    """Log mels with frames of silence on either side."""
    quiet = mel.new_full((pad, mel.shape[1]), silence)
    return torch.cat([quiet, mel, quiet])
