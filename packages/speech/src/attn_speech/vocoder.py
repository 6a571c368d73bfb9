"""From log mels to a waveform."""

from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

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
        self, log_mels: list[Float[Tensor, "frames mels"]], seeds: list[int]
    ) -> list[Float[Tensor, " time"]]:
        """The waveforms of some spectrograms, side by side where that is faster."""
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

    def __call__(self, log_mels: list[Tensor], seeds: list[int]) -> list[Tensor]:
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
    """

    def __init__(self, model: WaveNet, features: MelFeatures):
        self.model, self.features = model.eval(), features

    def __call__(self, log_mels: list[Tensor], seeds: list[int]) -> list[Tensor]:
        """Draws sample by sample, all of them at once."""
        pad, most = self.model.config.pad, max(map(len, log_mels))
        floor = torch.tensor(self.features.floor).log10().item()
        longest = [
            padded(
                torch.cat([mel, mel.new_full((most - len(mel), mel.shape[1]), floor)]), pad, floor
            )
            for mel in log_mels
        ]
        mels = self.features.scaled(torch.stack(longest)).transpose(1, 2)
        audio = generate(self.model, mels, seeds=seeds)
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
    return WaveNetVocoder(task.best, task.features)


def _long_enough(mel: Tensor, features: MelFeatures) -> Tensor:
    """At least as many frames as a transform needs to be undone."""
    least = features.fft // features.hop + 2
    return mel if len(mel) >= least else torch.cat([mel, mel[-1:].expand(least - len(mel), -1)])
