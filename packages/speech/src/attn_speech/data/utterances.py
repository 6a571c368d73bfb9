"""Labelled utterances as stacked features, divided so that no group is in two parts."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchaudio
from jaxtyping import Float, Int
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from core_attn.training import loader
from core_attn.weights import read_weights

from ..audio.features import MelFeatures
from ..audio.files import check_audio, read_audio
from .clips import cache_folder
from .labelled import Labelled, LabelledSource, segments


class UtteranceBatch(NamedTuple):
    """Utterances and their classes.

    Attributes:
        x: stacked features.
        labels: numbers of the classes.
    """

    x: Float[Tensor, "batch layers dim"]
    labels: Int[Tensor, " batch"]


class Statistics(NamedTuple):
    """Of each feature over the training part.

    Attributes:
        mean: of it.
        std: its deviation.
    """

    mean: Float[Tensor, " dim"]
    std: Float[Tensor, " dim"]

    def scaled(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Features as a classifier sees them."""
        return (x - self.mean) / self.std.clamp(min=1e-3)


class LayeredEncoder(nn.Module):
    """A frozen WavLM or wav2vec 2.0 of torchaudio, with weights from a file.

    Args:
        name: a builder of torchaudio.models: wavlm_base, wavlm_large, wav2vec2_base, …
        weights: a state dict for it; None for random weights, which only shows that it runs.

    Raises:
        FileNotFoundError: there is no file of weights.
        ValueError: there is no such builder, or the weights are not its.
    """

    rate = 16000

    def __init__(self, name: str = "wavlm_large", weights: str | None = None):
        super().__init__()
        build = getattr(torchaudio.models, name, None)
        is_family = name.startswith(("wavlm_", "wav2vec2_", "hubert_"))
        if build is None or not is_family or name.endswith("_model"):
            raise ValueError(f"torchaudio.models has no encoder {name!r}")
        self.encoder = build()
        self.frame = 1
        for block in reversed(self.encoder.feature_extractor.conv_layers):
            self.frame = (self.frame - 1) * block.stride + block.kernel_size
        if weights is not None:
            try:
                self.encoder.load_state_dict(read_weights(weights).state)
            except RuntimeError as error:
                raise ValueError(f"{weights}: not the weights of {name}: {error}") from None
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, audio: Float[Tensor, " time"]) -> Float[Tensor, "layers frames dim"]:
        """What each transformer layer makes of a waveform at 16 kHz.

        Raises:
            ValueError: it is shorter than a frame.
        """
        if len(audio) < self.frame:
            raise ValueError(
                f"audio of {len(audio)} samples is shorter than the encoder's frame of {self.frame}"
            )
        layers, _ = self.encoder.extract_features(audio[None])
        return torch.stack([layer[0] for layer in layers])


class UtteranceData(LightningDataModule):
    """Labelled utterances for classification.

    Each becomes (layers, dim): the layers of a frozen encoder, averaged over time, or log mels
    averaged over as many stretches of time.

    Args:
        source: where they come from.
        features: of the mels.
        segments: stretches of time.
        encoder: a frozen encoder in place of log mels.
        seconds: recordings are cut into parts of this length, each labelled like the whole and the
            last one filled up with silence; 0 for as they are.
        mask_padding: whether what is filled up is left out of the averages; officially it is not.
        test_groups: groups that make up the test; by default every `folds`-th of the sorted ones,
            from number `fold` on.
        folds: parts into which groups are divided.
        fold: the part that is the test.
        batch_size: utterances in a batch.
        seed: of the order.
        cache: the folder that keeps what is made; the user's by default.

    Raises:
        ValueError: a size is out of range.
    """

    def __init__(
        self,
        source: LabelledSource,
        features: MelFeatures = MelFeatures(mels=40),  # noqa: B008
        segments: int = 24,
        encoder: LayeredEncoder | None = None,
        seconds: float = 0.0,
        mask_padding: bool = False,
        test_groups: list[str] | None = None,
        folds: int = 5,
        fold: int = 0,
        batch_size: int = 32,
        seed: int = 0,
        cache: str | None = None,
    ):
        super().__init__()
        if seconds < 0:
            raise ValueError(f"seconds must not be negative, got {seconds}")
        if segments < 1 or batch_size < 1 or not 0 <= fold < folds:
            raise ValueError(
                f"segments {segments} and batch_size {batch_size} must be at least 1 and fold "
                f"{fold} below folds {folds}"
            )
        self.source, self.features, self.segments, self.encoder = (
            source, features, segments, encoder,
        )  # fmt: skip
        self.seconds, self.mask_padding = seconds, mask_padding
        self.test_groups, self.folds, self.fold = test_groups, folds, fold
        self.batch_size, self.seed = batch_size, seed
        self.cache = Path(cache).expanduser() if cache else cache_folder()
        self.class_names: list[str] = []
        self.groups: dict[str, list[str]] = {}
        self.parts: dict[str, TensorDataset] = {}
        self.statistics: Statistics | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and features of each."""
        return tuple(self.parts["train"].tensors[0].shape[1:])  # pyright: ignore

    def setup(self, stage: str) -> None:
        """Reads all utterances and divides them by group.

        Raises:
            ValueError: none is of use, a group is unknown, or a part lacks classes.
        """
        if self.parts:
            return
        stacked, kept, refused = [], [], {}
        for utterance in self.source.utterances(self.cache):
            try:
                parts = [self.stacked(audio) for audio in self._read(utterance)]
                stacked += parts
                kept += [utterance] * len(parts)
            except (ValueError, OSError) as error:
                reason = str(error).removeprefix(f"{utterance.path}: ").partition(",")[0]
                refused.setdefault(reason, []).append(utterance.name)
        if not kept:
            listed = "; ".join(f"{len(names)}: {reason}" for reason, names in refused.items())
            raise ValueError(f"no utterance is of use: {listed or 'there are none'}")
        self._divide(torch.stack(stacked), kept)
        line = (
            f"{type(self.source).__name__}: {len(kept)} utterances, {len(self.class_names)} "
            f"classes, tested on {', '.join(self.groups['test'])}"
        )
        for reason, names in refused.items():
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            line += f"; refused {len(names)}: {reason} ({shown})"
        rank_zero_only(print)(line, flush=True)

    def train_dataloader(self) -> Any:
        """Batches in an order given by seed and epoch."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> Any:
        """Those of the held-out group, or of the test where there are too few groups."""
        return self._loader("valid", shuffle=False)

    def test_dataloader(self) -> Any:
        """Those of the test's groups."""
        return self._loader("test", shuffle=False)

    def predict_dataloader(self) -> Any:
        """Those of the test."""
        return self.test_dataloader()

    def _divide(self, x: Tensor, kept: list[Labelled]) -> None:
        names = sorted({u.group for u in kept})
        test = self.test_groups or names[self.fold :: self.folds]
        if unknown := set(test) - set(names):
            raise ValueError(f"no group {', '.join(sorted(unknown))}; there are {', '.join(names)}")
        rest = [name for name in names if name not in test]
        valid = rest[-1:] if len(rest) > 1 else test
        self.groups = {
            "train": [name for name in rest if name not in valid] or rest,
            "valid": valid,
            "test": list(test),
        }
        self.class_names = sorted({u.label for u in kept})
        y = torch.tensor([self.class_names.index(u.label) for u in kept])
        for part, groups in self.groups.items():
            chosen = torch.tensor([u.group in groups for u in kept])
            if len(set(y[chosen].tolist())) < 2:
                there = {u.label for u in kept if u.group in groups}
                raise ValueError(
                    f"the {part} part, {', '.join(groups) or 'no group'}, has fewer than two "
                    f"classes: {', '.join(sorted(there)) or 'none'}"
                )
            self.parts[part] = TensorDataset(x[chosen], y[chosen])
        train = self.parts["train"].tensors[0].flatten(0, 1)
        self.statistics = Statistics(train.mean(0), train.std(0))
        for part, data in self.parts.items():
            stacked, labels = data.tensors
            self.parts[part] = TensorDataset(self.statistics.scaled(stacked), labels)

    @property
    def rate(self) -> int:
        """Samples a second of what is heard."""
        return self.encoder.rate if self.encoder is not None else self.features.rate

    def parts_of(self, audio: Float[Tensor, " time"]) -> list[Float[Tensor, " _time"]]:
        """The parts of a recording that are heard one by one, not yet filled up."""
        return list(audio.split(round(self.seconds * self.rate))) if self.seconds else [audio]

    def stacked(self, audio: Float[Tensor, " time"]) -> Float[Tensor, "layers dim"]:
        """A part as the classifier sees it, before it is scaled."""
        length = max(len(audio), round(self.seconds * self.rate))
        filled = nn.functional.pad(audio, (0, length - len(audio)))
        if self.encoder is not None:
            layers = self.encoder(filled)
        else:
            layers = self.features.log_mel(filled)[None]
        if self.mask_padding:
            layers = layers[:, : math.ceil(layers.shape[1] * len(audio) / length)]
        return layers.mean(1) if self.encoder is not None else segments(layers[0], self.segments)

    def _read(self, utterance: Labelled) -> list[Tensor]:
        if utterance.sound is not None:
            audio = utterance.sound()
            check_audio(audio, utterance.name)
            audio = torchaudio.functional.resample(audio, utterance.rate, self.rate)
        elif utterance.path is not None:
            audio = read_audio(utterance.path, self.rate).audio
        else:
            raise ValueError("there is no sound for it")
        return self.parts_of(audio)

    def _loader(self, part: str, *, shuffle: bool) -> Any:
        return loader(
            self.parts[part], self.batch_size, shuffle=shuffle, seed=self.seed,
            collate_fn=_collated,
        )  # fmt: skip


def _collated(samples: list[tuple[Tensor, Tensor]]) -> UtteranceBatch:
    x, labels = zip(*samples, strict=True)
    return UtteranceBatch(torch.stack(x), torch.stack(labels))
