"""Training Transformer TTS."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor, nn

from core_attn import record
from core_attn.training import Exhibit, schedules

from ..audio.features import MelFeatures
from ..data.batching import SpeechBatch
from ..data.module import SpeechData
from ..metrics.alignment import diagonality
from ..metrics.listening import Listener
from ..models import TransformerTTS, TransformerTTSConfig
from ..models.decoding import DecodeOptions, Steps, decode
from ..models.tts_loss import TTSLossConfig, tts_losses
from ..official import transformer_tts as espnet
from ..text.symbols import Symbols
from . import pictures
from .judging import Judge
from .sized_by_data import SizedByData

Metrics = dict[str, Tensor]


class SpeechSynthesis(SizedByData):
    """Trains Transformer TTS on utterances; the vocabulary, bands and speakers are the data's.

    Adam, whose rate rises linearly over `warmup` steps and then falls.

    Args:
        config: sizes and options; `vocabulary`, `mels` and `speakers` are set by the data.
        loss: what the loss is made of.
        lr: the highest learning rate.
        warmup: steps of rising rate.
        falling: how it falls then: as the "root" of the number of steps, or as half a "cosine" that
            ends with the run.
        own_frames: share of the frames shown in training that are the model's own predictions, so
            that it learns to go on from what it says; the paper shows true ones only.
        weights: a file to start from: a checkpoint of this package, or of ESPnet.
        max_ratio: frames per symbol at which decoding stops, in the test.
        listen: whether the test makes sound of what is said and has it transcribed and rated, by
            those judges that are installed.
        listener: who transcribes it: "pocketsphinx" or "whisper".

    Source: Li et al., 2019, arXiv 1809.08895.
    """

    model: TransformerTTS

    def __init__(
        self,
        config: TransformerTTSConfig = TransformerTTSConfig(),  # noqa: B008
        loss: TTSLossConfig = TTSLossConfig(),  # noqa: B008
        lr: float = 1e-3,
        warmup: int = 200,
        falling: Literal["root", "cosine"] = "root",
        own_frames: float = 0.0,
        weights: str | None = None,
        max_ratio: float = 10.0,
        listen: bool = True,
        listener: Listener = "pocketsphinx",
    ):
        super().__init__()
        if lr <= 0 or warmup < 1:
            raise ValueError(f"lr and warmup must be positive, got {lr}, {warmup}")
        if not 0 <= own_frames <= 1:
            raise ValueError(f"own_frames must be in 0 ... 1, got {own_frames}")
        self.config, self.loss, self.lr, self.warmup = config, loss, lr, warmup
        self.falling: Literal["root", "cosine"] = falling
        self.own_frames, self.weights = own_frames, weights
        self.options = DecodeOptions(max_ratio=max_ratio)
        self.listen = listen
        self.listener: Listener = listener
        self.speakers: list[str] = []
        self.pronunciations: dict[str, str] = {}
        self.alignment_head, self.longest = (0, 0), 150
        self._judge: Judge | None = None

    def setup(self, stage: str) -> None:
        """Leaves out clips with fewer frames than one step of the decoder."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(data, SpeechData):
            data.leave_out_below(self.config.reduction, "reduction")

    def build_for(self, data: LightningDataModule) -> None:
        """Builds the network for the symbols, bands and speakers of the data."""
        if not isinstance(data, SpeechData):
            raise ValueError(f"SpeechSynthesis needs SpeechData, got {type(data).__name__}")
        self._build(data.features, data.symbols, data.speakers)
        given = data.front_end.known
        self.pronunciations = {word: " ".join(sounds) for word, sounds in given.items()}
        self.longest = data.longest

    def _build(self, features: MelFeatures, symbols: Symbols, speakers: list[str]) -> None:
        self.features, self.symbols, self.speakers = features, symbols, speakers
        count = len(speakers) if len(speakers) > 1 else 0
        self.config = replace(
            self.config, vocabulary=len(symbols), mels=features.mels, speakers=count
        )
        self.model = self.network(self.config)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the numbers of the network mean."""
        checkpoint["speech"] = {
            "features": self.features.as_dict(),
            "front_end": self.symbols.front_end,
            "symbols": list(self.symbols.names),
            "speakers": self.speakers,
            "pronunciations": self.pronunciations,
            "alignment_head": list(self.alignment_head),
            "longest": self.longest,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the network as it was; data that are to continue it must be of the same kind.

        Raises:
            ValueError: the checkpoint is of another task, or the data are of another kind.
        """
        kept = checkpoint.get("speech")
        if kept is None or "symbols" not in kept:
            raise ValueError("the checkpoint is not one of speech synthesis")
        features = MelFeatures.from_dict(kept["features"])
        symbols = Symbols(kept["front_end"], tuple(kept["symbols"]))
        if hasattr(self, "model"):
            symbols.require(self.symbols)
            features.require(self.features, "the data")
            self.features = features
        else:
            self._build(features, symbols, kept["speakers"])
            self.pronunciations = kept.get("pronunciations", {})
        self.alignment_head, self.longest = tuple(kept["alignment_head"]), kept["longest"]

    def adapted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights of ESPnet under our names; ours as they are."""
        if any(key.removeprefix("tts.").startswith("encoder.embed.") for key in state) and any(
            key.removeprefix("tts.").startswith("feat_out.") for key in state
        ):
            return espnet.renamed(state, self.config)
        return state

    def training_step(self, batch: SpeechBatch, index: int) -> Tensor:
        """The loss, with guided attention where asked for."""
        parts = self.losses(batch)
        for name, value in parts.items():
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, sync_dist=True,
                     prog_bar=name == "loss")  # fmt: skip
        return parts["loss"]

    def validation_step(self, batch: SpeechBatch, index: int) -> None:
        """Logs the loss and how far heads run along the text."""
        with record(self.model, "pattern", layers="decoder.blocks.*.cross") as seen:
            parts = self.losses(batch)
            pattern = torch.stack([x.detach().float() for x in seen.values()], 1)
        count = len(batch.text)
        for name, value in parts.items():
            self.log(f"val/{name}", value, prog_bar=name == "loss", batch_size=count,
                     sync_dist=True)  # fmt: skip
        steps = (batch.mel_lengths // self.config.reduction).tolist()
        tokens = (batch.text_lengths + 1).tolist()
        rows = [x[:, :, :t, :n] for x, t, n in zip(pattern, steps, tokens, strict=True)]
        self._diagonals += [diagonality(row) for row in rows]
        self._longest = rows[-1]

    def on_validation_epoch_start(self) -> None:
        """Begins anew to measure heads."""
        self._diagonals: list = []
        self._longest: Tensor | None = None

    def on_validation_epoch_end(self) -> None:
        """Chooses the head that runs along the text, and draws it beside the checkpoints."""
        if not self._diagonals:
            return
        focus, band = (
            torch.stack([getattr(d, name) for d in self._diagonals]).mean(0)
            for name in ("focus", "band")
        )
        heads = focus.shape[1]
        layer, head = divmod(int((focus * band).argmax()), heads)
        self.alignment_head = (layer, head)
        self.log("val/focus", focus.max(), prog_bar=True)
        self.log("val/band", band[layer, head])
        folder = getattr(self.logger, "log_dir", None) if self.trainer.is_global_zero else None
        if folder and not self.trainer.sanity_checking and self._longest is not None:
            picture = pictures.alignment(self._longest[layer, head].cpu(), (layer, head))
            path = Path(folder, "alignments", f"step-{self.global_step:06d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.savefig(path, dpi=80)

    def on_test_epoch_start(self) -> None:
        """Begins anew to judge."""
        self._judge = Judge(
            self.features, self.alignment_head, listen=self.listen, listener=self.listener
        )

    def test_step(self, batch: SpeechBatch, index: int) -> None:
        """Speaks the texts freely and compares."""
        assert self._judge is not None
        data: SpeechData = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        numbers = data.test_numbers[index]
        said = [data.prepared.rows[i]["text"] for i in numbers]  # pyright: ignore
        self.judge(batch, said, self._judge)

    @torch.no_grad()
    def judge(self, batch: SpeechBatch, texts: list[str], judge: Judge) -> None:
        """Compares what is predicted, shown the true mels and freely, with the true mels."""
        speaker = batch.speaker(self.config.speakers > 0)
        shown = self.model(
            batch.text, batch.text_lengths, self._scaled(batch), batch.mel_lengths, speaker
        )
        free = decode(self.model, batch.text, batch.text_lengths, speaker, options=self.options)
        for row, (done, text) in enumerate(zip(free, texts, strict=True)):
            length = int(batch.mel_lengths[row])
            judge.add(
                true=batch.mels[row, :length].float().cpu(),
                shown=self.features.restored(shown.after[row, :length].float()).cpu(),
                said=self.features.restored(done.mel.float()).cpu(),
                decoded=done,
                text=text,
            )

    def on_test_epoch_end(self) -> None:
        """Logs the whole table."""
        assert self._judge is not None
        for name, value in self._judge.table().items():
            self.log(f"test/{name}", value)

    def predict_step(self, batch: SpeechBatch, index: int) -> list[Tensor]:
        """The log mels of each text, spoken freely."""
        speaker = batch.speaker(self.config.speakers > 0)
        done = decode(self.model, batch.text, batch.text_lengths, speaker, options=self.options)
        return [self.features.restored(one.mel) for one in done]

    def losses(self, batch: SpeechBatch) -> Metrics:
        """The parts of the loss of a batch and their sum."""
        mels, speaker = self._scaled(batch), batch.speaker(self.config.speakers > 0)
        given = (batch.text, batch.text_lengths, mels, batch.mel_lengths, speaker)
        options = {"reduction": self.config.reduction, "text_lengths": batch.text_lengths}
        own = self.own_frames if self.training else 0.0
        if not self.loss.guided:
            prediction = self.model(*given, own=own)
            return tts_losses(prediction, mels, batch.mel_lengths, self.loss, **options)
        with record(self.model, "pattern", layers=self.loss.recorded) as seen:
            prediction = self.model(*given, own=own)
            return tts_losses(
                prediction, mels, batch.mel_lengths, self.loss, patterns=seen, **options
            )

    def configure_optimizers(self):
        """Adam with a rising, then falling rate."""
        optimizer = torch.optim.Adam(
            self.model.parameters(), self.lr, betas=(0.9, 0.98), fused=True
        )
        if self.falling == "cosine":
            batches = len(self.trainer.datamodule.train_dataloader())  # pyright: ignore
            return schedules.warmup_cosine(optimizer, self.trainer, warmup=self.warmup / batches)

        def rate(step: int) -> float:
            return min((step + 1) / self.warmup, (self.warmup / (step + 1)) ** 0.5)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def figures(self, data: LightningDataModule) -> Iterable[Exhibit]:
        """Alignments, mels, and the sound of some test sentences."""
        if isinstance(data, SpeechData):
            yield from pictures.synthesis(self, data)

    def exported(self) -> nn.Module:
        """The steps so far as one function; it needs a model of one speaker.

        Raises:
            ValueError: the model asks who speaks.
        """
        if self.config.speakers:
            raise ValueError(f"export is for one speaker, the model has {self.config.speakers}")
        return Steps(self.model)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two texts, three steps, and the pre-net's dropout where there is some."""
        steps, tokens = 3, 6
        text = torch.randint(1, self.config.vocabulary - 1, (2, tokens))
        inputs = text, torch.tensor([tokens, tokens - 2]), torch.randn(2, steps, self.config.mels)
        noise = self.model.decoder.noise([0, 1])
        return inputs if noise is None else (*inputs, noise.draw(steps))

    def open_sizes(self) -> tuple[dict[int, str], ...]:
        """Texts and what is said of them have any length."""
        return ({1: "tokens"}, {}, {1: "steps"}, {1: "steps"})[: len(self.example_inputs())]

    def _scaled(self, batch: SpeechBatch) -> Tensor:
        place = torch.arange(batch.mels.shape[1], device=batch.mels.device)
        padding = place >= batch.mel_lengths[:, None]
        return self.features.scaled(batch.mels).masked_fill(padding[..., None], 0.0)
