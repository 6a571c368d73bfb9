"""Training WaveNet."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from core_attn.training import Exhibit

from ..audio.features import MelFeatures
from ..data.batching import SegmentBatch
from ..data.module import SpeechData
from ..metrics.distances import log_mel_l1
from ..models import WaveNet, WaveNetConfig
from ..official import wavenet as r9y9
from ..vocoder import WaveNetVocoder
from . import pictures
from .sized_by_data import SizedByData


class Vocoding(SizedByData):
    """Trains WaveNet on segments of waveforms and their mels.

    Adam without clipping, whose rate halves every `halving` steps; a running mean of the weights is
    what is validated and saved as the network.

    Args:
        config: sizes and options; `mels` and `speakers` are set by the data.
        lr: learning rate.
        halving: steps after which it halves.
        averaging: decay of the running mean of weights; 0 for none.
        weights: a file to start from: a checkpoint of this package, or of r9y9's vocoder.

    Source: van den Oord et al., 2016, arXiv 1609.03499; the recipe is r9y9's.
    """

    model: WaveNet

    def __init__(
        self,
        config: WaveNetConfig = WaveNetConfig(),  # noqa: B008
        lr: float = 1e-3,
        halving: int = 200_000,
        averaging: float = 0.0,
        weights: str | None = None,
    ):
        super().__init__()
        if lr <= 0 or halving < 1 or not 0 <= averaging < 1:
            raise ValueError(
                f"lr and halving must be positive and averaging in [0, 1), got {lr}, {halving}, "
                f"{averaging}"
            )
        self.config, self.lr, self.halving, self.averaging = config, lr, halving, averaging
        self.weights = weights
        self.average: AveragedModel | None = None
        self.speakers: list[str] = []

    def build_for(self, data: LightningDataModule) -> None:
        """Builds the network for the bands of the data.

        Raises:
            ValueError: the data are of another kind, or their hop or padding is not the network's.
        """
        if not isinstance(data, SpeechData):
            raise ValueError(f"Vocoding needs SpeechData, got {type(data).__name__}")
        self._build(data.features, data.speakers)
        self._check(data)

    def _build(self, features: MelFeatures, speakers: list[str]) -> None:
        self.features = features
        self.speakers = speakers if self.config.speaker_dim else []
        self.config = replace(self.config, mels=features.mels, speakers=len(self.speakers))
        if self.config.hop != features.hop:
            raise ValueError(
                f"the scales {list(self.config.scales)} multiply to {self.config.hop}, "
                f"the hop of the mels is {features.hop}"
            )
        self.model = self.network(self.config)
        if self.averaging:
            self.average = AveragedModel(
                self.model, multi_avg_fn=get_ema_multi_avg_fn(self.averaging)
            )

    def _check(self, data: SpeechData) -> None:
        if not data.segment_frames or data.segment_pad != self.config.margin:
            raise ValueError(
                f"a vocoder needs data.segment_frames above 0 and data.segment_pad "
                f"{self.config.margin}, got {data.segment_frames} and {data.segment_pad}"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the mels are."""
        checkpoint["vocoder"] = {
            "features": self.features.as_dict(), "speakers": self.speakers,
        }  # fmt: skip

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the network as it was; data that are to continue it must have the same mels.

        Raises:
            ValueError: the checkpoint is of another task, or the mels are others.
        """
        kept = checkpoint.get("vocoder")
        if kept is None:
            raise ValueError("the checkpoint is not one of a vocoder")
        features = MelFeatures.from_dict(kept["features"])
        if hasattr(self, "model"):
            features.require(self.features, "the data")
            self.features = features
        else:
            self._build(features, kept["speakers"])

    def adapted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights of r9y9's vocoder under our names; ours as they are."""
        if any(key.startswith("first_conv.") for key in state):
            return r9y9.renamed(state, self.config)
        return state

    def training_step(self, batch: SegmentBatch, index: int) -> Tensor:
        """Negative log likelihood of the next sample."""
        loss = self._cost(self.model, batch)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Updates the running mean of the weights."""
        if self.average is not None:
            self.average.update_parameters(self.model)

    def validation_step(self, batch: SegmentBatch, index: int) -> None:
        """Logs the loss of the averaged weights."""
        self._measure("val", batch)

    def test_step(self, batch: SegmentBatch, index: int) -> None:
        """Logs the loss, with the true mels and with those of another piece."""
        self._measure("test", batch)
        others = batch._replace(mels=batch.mels.roll(1, 0))
        self.log("test/loss_of_other_mels", self._cost(self.best, others))

    def on_test_epoch_end(self) -> None:
        """Logs how far what is drawn for some mels is from them, beside Griffin-Lim."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        distances: dict[str, list[float]] = {}
        for _, mel, sounds in pictures.resynthesized(self.drawing, data):
            for name, sound in sounds.items():
                distance = log_mel_l1(self.features.log_mel(sound), mel)
                distances.setdefault(name, []).append(distance)
        for name, values in distances.items():
            self.log(f"test/mel_l1_{name.lower()}", sum(values) / len(values))

    def predict_step(self, batch: SegmentBatch, index: int) -> Tensor:
        """Waveforms drawn for the mels."""
        from ..models.generation import generate

        seeds = list(range(len(batch.audio)))
        mels = self.features.scaled(batch.mels.transpose(1, 2)).transpose(1, 2)
        return generate(self.best.eval(), mels, self._who(batch), seeds=seeds)

    def configure_optimizers(self):
        """Adam, whose rate halves in steps."""
        optimizer = torch.optim.Adam(self.model.parameters(), self.lr)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, self.halving, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def figures(self, data: LightningDataModule) -> Iterable[Exhibit]:
        """Recordings and what is drawn for their mels, seen and heard."""
        if isinstance(data, SpeechData):
            yield from pictures.vocoding(self.drawing, data)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two short waveforms and their mels."""
        frames = 8
        mels = torch.randn(2, self.config.mels, frames + 2 * self.config.margin)
        channels = self.config.out_channels if self.config.onehot else 1
        inputs = torch.zeros(2, channels, frames * self.config.hop), mels
        return (*inputs, torch.zeros(2, dtype=torch.long)) if self.speakers else inputs

    @property
    def drawing(self) -> WaveNetVocoder:
        """The averaged network as what makes sound of mels."""
        return WaveNetVocoder(self.best, self.features, self.speakers)

    @property
    def best(self) -> WaveNet:
        """The averaged network, where there is one."""
        return self.model if self.average is None else cast(WaveNet, self.average.module)

    def _measure(self, part: str, batch: SegmentBatch) -> None:
        cost, count = self._cost(self.best, batch), len(batch.audio)
        self.log(f"{part}/loss", cost, prog_bar=True, sync_dist=True, batch_size=count)

    def _cost(self, model: WaveNet, batch: SegmentBatch) -> Tensor:
        mels = self.features.scaled(batch.mels.transpose(1, 2)).transpose(1, 2)
        return model.cost(batch.audio, mels, self._who(batch)).mean()

    def _who(self, batch: SegmentBatch) -> Tensor | None:
        return batch.speakers if self.config.speakers else None
