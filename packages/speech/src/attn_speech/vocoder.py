"""From log mels to a waveform."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .audio.features import MelFeatures
from .data.batching import padded
from .models.generation import generate
from .models.wavenet import WaveNet


class Vocoder(Protocol):
    """What makes sound of frames.

    Attributes:
        features: of the log mels that it takes.
    """

    features: MelFeatures

    def __call__(
        self,
        log_mels: list[Float[Tensor, "_frames mels"]],
        seeds: list[int],
        speaker: str | None = None,
    ) -> list[Float[Tensor, " _time"]]:
        """The waveforms of some spectrograms, side by side where that is faster.

        Args:
            log_mels: of each.
            seeds: of what is random, for each.
            speaker: whose they are, for vocoders that know speakers apart.
        """
        ...


class GriffinLim:
    """Phases by iteration: no training, quick, a little metallic.

    Args:
        features: of the log mels.
        iterations: how many.

    Example:
        >>> [audio] = GriffinLim(MelFeatures())([torch.full((20, 80), -4.0)], [0])
        >>> len(audio)
        3800
    """

    def __init__(self, features: MelFeatures, iterations: int = 60):
        self.features, self.iterations = features, iterations

    def __call__(
        self, log_mels: list[Tensor], seeds: list[int], speaker: str | None = None
    ) -> list[Tensor]:
        """Finds phases for each."""
        return [
            self.features.griffin_lim(_long_enough(mel, self.features), self.iterations, seed=seed)
            for mel, seed in zip(log_mels, seeds, strict=True)
        ]


class WaveNetVocoder:
    """A trained WaveNet.

    Args:
        model: in eval mode.
        features: of the log mels, with the statistics that the model was trained with.
        speakers: names of those that the model knows apart; none where it does not.
    """

    def __init__(self, model: WaveNet, features: MelFeatures, speakers: Sequence[str] = ()):
        self.model, self.features, self.speakers = model.eval(), features, list(speakers)

    def __call__(
        self, log_mels: list[Tensor], seeds: list[int], speaker: str | None = None
    ) -> list[Tensor]:
        """Draws sample by sample, all of them at once.

        Raises:
            ValueError: the model knows speakers apart, and this one is none of them.
        """
        pad, most = self.model.config.margin, max(map(len, log_mels))
        silence = self.features.silence
        longest = [
            nn.functional.pad(padded(mel, pad, silence), (0, 0, 0, most - len(mel)), value=silence)
            for mel in log_mels
        ]
        mels = self.features.scaled(torch.stack(longest)).transpose(1, 2)
        who = None
        if self.speakers:
            if speaker not in self.speakers:
                known = ", ".join(self.speakers)
                raise ValueError(f"the vocoder has no speaker {speaker!r}; it has {known}")
            who = torch.full((len(log_mels),), self.speakers.index(speaker))
        audio = generate(self.model, mels, who, seeds=seeds)
        hop = self.model.config.hop
        return [x[: len(mel) * hop] for x, mel in zip(audio, log_mels, strict=True)]


def load_vocoder(path: str | Path) -> WaveNetVocoder:
    """The vocoder in a checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not the checkpoint of a vocoder.
    """
    from core_attn.training import opened

    from .tasks.vocoding import Vocoding

    task = opened(path).task
    if not isinstance(task, Vocoding):
        raise ValueError(f"checkpoint {path} is not that of a vocoder, but {type(task).__name__}")
    return WaveNetVocoder(task.best, task.features, task.speakers)


def _long_enough(mel: Tensor, features: MelFeatures) -> Tensor:
    """At least as many frames as a transform needs to be undone."""
    least = features.fft // features.hop + 2
    return mel if len(mel) >= least else torch.cat([mel, mel[-1:].expand(least - len(mel), -1)])
