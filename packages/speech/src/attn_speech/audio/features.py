"""Mel spectrograms: one description shared by every model, and what it makes of a waveform."""

import math
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

import torch
import torchaudio
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class MelFeatures:
    """How a waveform becomes frames, and how frames are scaled for a network.

    Log mels are the common currency: whatever leaves a model or enters one is in them, and each
    model scales them for itself, with the statistics it was trained with.

    Attributes:
        rate: samples a second.
        hop: samples from one frame to the next.
        window: samples of a Hann window.
        fft: length of the transform, at least the window.
        mels: bands.
        low: the lowest frequency, in Hz.
        high: the highest, in Hz.
        scale: of the bands.
        log_base: of the logarithm of the amplitude.
        floor: the smallest amplitude.
        mean: of each band over the training data, for scaling; empty for none.
        std: likewise.

    Raises:
        ValueError: a value is out of range.

    Source: the features of ESPnet's LJSpeech recipe, at the frame rate of arXiv 1809.08895.

    Example:
        >>> features = MelFeatures()
        >>> features.log_mel(torch.zeros(2000)).shape
        torch.Size([11, 80])
    """

    rate: int = 16000
    hop: int = 200
    window: int = 800
    fft: int = 1024
    mels: int = 80
    low: float = 80.0
    high: float = 7600.0
    scale: Literal["slaney", "htk"] = "slaney"
    log_base: Literal["10", "e"] = "10"
    floor: float = 1e-10
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self):
        if self.mels < 1 or not self.floor > 0:
            raise ValueError(
                f"mels must be at least 1 and floor above 0, got {self.mels} and {self.floor}"
            )
        if self.scale not in ("slaney", "htk") or self.log_base not in ("10", "e"):
            raise ValueError(
                f"scale must be slaney or htk and log_base 10 or e, got {self.scale!r} and "
                f"{self.log_base!r}"
            )
        if not 0 < self.hop <= self.window <= self.fft:
            raise ValueError(
                f"hop {self.hop}, window {self.window} and fft {self.fft} must rise from above 0"
            )
        if not 0 <= self.low < self.high <= self.rate / 2:
            raise ValueError(
                f"low {self.low} and high {self.high} must lie in 0 ... {self.rate / 2}"
            )
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, self.mels):
            raise ValueError(f"mean and std must have {self.mels} entries, or none")

    def log_mel(self, audio: Float[Tensor, "*batch time"]) -> Float[Tensor, "*batch frames mels"]:
        """Frames of a waveform in [-1, 1]: one at every hop, the first centred on its start.

        Raises:
            ValueError: the waveform is too short to be mirrored at its ends.
        """
        if audio.shape[-1] <= self.fft // 2:
            raise ValueError(
                f"audio of {audio.shape[-1]} samples is too short for frames of {self.fft}; "
                f"it needs {self.fft // 2 + 1}"
            )
        mel = self.magnitude(audio) @ _basis(self.unscaled).to(audio)
        return mel.clamp(min=self.floor).log() / self._unit

    def magnitude(self, audio: Float[Tensor, "*batch time"]) -> Float[Tensor, "*batch frames bins"]:
        """The amplitude spectrum of each frame."""
        flat = audio.reshape(-1, audio.shape[-1])
        spectrum = torch.stft(
            flat, self.fft, self.hop, self.window, torch.hann_window(self.window).to(audio),
            return_complex=True,
        )  # fmt: skip
        return spectrum.abs().transpose(1, 2).reshape(*audio.shape[:-1], -1, self.fft // 2 + 1)

    def griffin_lim(
        self,
        log_mel: Float[Tensor, "frames mels"],
        iterations: int = 32,
        momentum: float = 0.99,
        seed: int = 0,
    ) -> Float[Tensor, " time"]:
        """A waveform whose frames come near these, phases found by iteration.

        The global random state is left as it was.

        Source: Griffin and Lim, 1984; Perraudin et al., 2013, for the momentum.
        """
        amplitude = (log_mel * self._unit).exp() @ _inverse(self.unscaled).to(log_mel)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return torchaudio.functional.griffinlim(
                amplitude.clamp(min=1e-8).T, torch.hann_window(self.window).to(log_mel), self.fft,
                self.hop, self.window, power=1.0, n_iter=iterations, momentum=momentum,
                length=None, rand_init=True,
            )  # fmt: skip

    def scaled(self, log_mel: Float[Tensor, "*batch mels"]) -> Float[Tensor, "*batch mels"]:
        """Log mels as the network sees them."""
        if not self.mean:
            return log_mel
        return (log_mel - torch.tensor(self.mean).to(log_mel)) / torch.tensor(self.std).to(log_mel)

    def restored(self, scaled: Float[Tensor, "*batch mels"]) -> Float[Tensor, "*batch mels"]:
        """Log mels of what a network has said."""
        if not self.mean:
            return scaled
        return scaled * torch.tensor(self.std).to(scaled) + torch.tensor(self.mean).to(scaled)

    def fitted(self, log_mels: list[Float[Tensor, "_frames mels"]]) -> "MelFeatures":
        """These features with the mean and deviation of each band over some frames."""
        frames = torch.cat(log_mels).double()
        std = frames.std(0, correction=0).clamp(min=1e-3)
        return replace(self, mean=tuple(frames.mean(0).tolist()), std=tuple(std.tolist()))

    @property
    def silence(self) -> float:
        """The log mel of silence."""
        return math.log(self.floor) / self._unit

    @property
    def unscaled(self) -> "MelFeatures":
        """Without mean and deviation."""
        return replace(self, mean=(), std=())

    @property
    def _unit(self) -> float:
        return math.log(10) if self.log_base == "10" else 1.0

    def require(self, other: "MelFeatures", whose: str) -> None:
        """Requires that frames mean the same; each may scale them for itself.

        Args:
            other: the others' features.
            whose: for the message.

        Raises:
            ValueError: a field differs; the message names all that do.
        """
        differ = [
            f"{field.name} {getattr(self, field.name)} against {getattr(other, field.name)}"
            for field in fields(self)
            if field.name not in ("mean", "std")
            and getattr(self, field.name) != getattr(other, field.name)
        ]
        if differ:
            raise ValueError(f"the mels of {whose} are others: {', '.join(differ)}")

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "MelFeatures":
        """The features that `as_dict` gave."""
        kept: dict[str, Any] = {**data, "mean": tuple(data["mean"]), "std": tuple(data["std"])}
        return MelFeatures(**kept)


@lru_cache(maxsize=8)
def _basis(features: MelFeatures) -> Tensor:
    norm = "slaney" if features.scale == "slaney" else None
    return torchaudio.functional.melscale_fbanks(
        features.fft // 2 + 1, features.low, features.high, features.mels, features.rate,
        norm=norm, mel_scale=features.scale,
    )  # fmt: skip


@lru_cache(maxsize=8)
def _inverse(features: MelFeatures) -> Tensor:
    return torch.linalg.pinv(_basis(features))
