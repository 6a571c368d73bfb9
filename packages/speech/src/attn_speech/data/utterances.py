"""Labelled utterances as stacked features, divided so that no group is in two parts."""

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


class LayeredEncoder(nn.Module):
    """A frozen WavLM or wav2vec 2.0 of torchaudio, with weights from a file.

    Args:
        name: a builder of torchaudio.models: wavlm_base, wavlm_large, wav2vec2_base, …
        weights: a state dict for it; None for random weights, which only shows that it runs.

    Raises:
        ValueError: there is no such builder, or the weights are not its.
    """

    rate = 16000

    def __init__(self, name: str = "wavlm_large", weights: str | None = None):
        super().__init__()
        build = getattr(torchaudio.models, name, None)
        if build is None or not name.startswith(("wavlm_", "wav2vec2_", "hubert_")):
            raise ValueError(f"torchaudio.models has no encoder {name!r}")
        self.encoder = build()
        if weights is not None:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            try:
                self.encoder.load_state_dict(state.get("model", state))
            except RuntimeError as error:
                raise ValueError(f"{weights}: not the weights of {name}: {error}") from None
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, audio: Float[Tensor, " time"]) -> Float[Tensor, "layers frames dim"]:
        """What each transformer layer makes of a waveform at 16 kHz."""
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
        seconds: recordings are cut to this length, or filled up with silence; 0 for as they are.
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
        test_groups: list[str] | None = None,
        folds: int = 5,
        fold: int = 0,
        batch_size: int = 32,
        seed: int = 0,
        cache: str | None = None,
    ):
        super().__init__()
        if segments < 1 or batch_size < 1 or not 0 <= fold < folds:
            raise ValueError(
                f"segments {segments} and batch_size {batch_size} must be at least 1 and fold "
                f"{fold} below folds {folds}"
            )
        self.source, self.features, self.segments, self.encoder = (
            source, features, segments, encoder,
        )  # fmt: skip
        self.seconds, self.test_groups, self.folds, self.fold = seconds, test_groups, folds, fold
        self.batch_size, self.seed = batch_size, seed
        self.cache = Path(cache).expanduser() if cache else cache_folder()
        self.class_names: list[str] = []
        self.groups: dict[str, list[str]] = {}
        self.parts: dict[str, TensorDataset] = {}

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
                stacked.append(self._stacked(utterance))
                kept.append(utterance)
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
        mean, std = (f(self.parts["train"].tensors[0].flatten(0, 1), 0) for f in _STATISTICS)
        for part, data in self.parts.items():
            scaled, labels = data.tensors
            self.parts[part] = TensorDataset((scaled - mean) / std.clamp(min=1e-3), labels)

    def _stacked(self, utterance: Labelled) -> Tensor:
        rate = self.encoder.rate if self.encoder is not None else self.features.rate
        if utterance.sound is not None:
            audio = utterance.sound()
            check_audio(audio, utterance.name)
            audio = torchaudio.functional.resample(audio, utterance.rate, rate)
        elif utterance.path is not None:
            audio = read_audio(utterance.path, rate).audio
        else:
            raise ValueError("there is no sound for it")
        if self.seconds:
            length = round(self.seconds * rate)
            audio = nn.functional.pad(audio[:length], (0, max(0, length - len(audio))))
        if self.encoder is not None:
            return self.encoder(audio).mean(1)
        return segments(self.features.log_mel(audio), self.segments)

    def _loader(self, part: str, *, shuffle: bool) -> Any:
        return loader(
            self.parts[part], self.batch_size, shuffle=shuffle, seed=self.seed,
            collate_fn=_collated,
        )  # fmt: skip


_STATISTICS = (torch.mean, torch.std)


def _collated(samples: list[tuple[Tensor, Tensor]]) -> UtteranceBatch:
    x, labels = zip(*samples, strict=True)
    return UtteranceBatch(torch.stack(x), torch.stack(labels))
