"""Training of language models: the next token, and what the mixers add."""

import math
from collections.abc import Iterable
from typing import Any, Literal, cast

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.nn import functional as F

from core_attn import losses
from core_attn.training import Exhibit

from ..data import Batch, TextData
from ..models import Decoder
from ..models.centroids import init_centroids, lacks_centroids, update_centroids
from ..models.rcmha import RCMHAConfig, next_segment
from .base import TextTask


class LanguageModel(TextTask):
    """Trains a named model to predict the next token.

    Args:
        variant: a name from `attn_language.VARIANTS`.
        settings: those of its configuration that differ; vocab and context come from the data.
        segments: pieces in which a training window is read, each seeing the ones before as memory
            only; for models that have one.
        optimizer: AdamW, or Adam without weight decay.
        lr: largest learning rate.
        final_lr: at the end, after a cosine.
        warmup: steps of rising rate.
        betas: of the moments.
        eps: of the optimizer.
        weight_decay: of matrices.
        weights: a checkpoint, Hugging Face folder or GGUF file that a new run starts from.

    Raises:
        ValueError: the variant or a setting does not exist or fit.
    """

    reads = TextData

    def __init__(
        self,
        variant: str = "transformer",
        settings: dict[str, Any] | None = None,
        segments: int = 1,
        optimizer: Literal["adamw", "adam"] = "adamw",
        lr: float = 3e-3,
        final_lr: float = 0.0,
        warmup: int = 20,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        weights: str | None = None,
    ):
        super().__init__(
            variant, settings, optimizer, lr, final_lr, warmup, betas, eps, weight_decay, weights
        )
        if segments < 1:
            raise ValueError(f"segments must be at least 1, got {segments}")
        self.segments = segments

    @property
    def network(self) -> Decoder:
        """The built network."""
        return cast(Decoder, self.model)

    def sizes(self, data: TextData) -> dict[str, Any]:
        """Vocabulary and context."""
        context = self.settings.get("context", data.context)
        return {**super().sizes(data), "context": context}

    def on_fit_start(self) -> None:
        """Sets centroids that come from data, by windows that every process reads alike."""
        if lacks_centroids(self.model):
            data = cast(TextData, self.trainer.datamodule)  # type: ignore[attr-defined]
            batch = data.first_windows(32)
            ids, lengths = batch.ids[:, :-1].to(self.device), (batch.lengths - 1).to(self.device)
            init_centroids(self.model, ids, lengths)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Cross entropy of the next token, plus what the layers add."""
        loss, _ = self._loss(batch)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss + sum(losses(self.model).values())

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Moves the centroids with the weights, so that a checkpoint of the step holds both."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        update_centroids(self.model)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Logs nats a token and bits a byte."""
        self._measure("val", batch)

    def test_step(self, batch: Batch, index: int) -> None:
        """Logs nats a token, bits a byte and the share of tokens that were the likeliest."""
        self._measure("test", batch)

    def predict_step(self, batch: Batch, index: int) -> Tensor:
        """The likeliest next token at every position."""
        return self._logits(batch).argmax(-1)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two windows of random tokens."""
        config = self.network.config
        tokens = min(config.context, 32)
        return (torch.randint(config.vocab, (2, tokens)),)

    def figures(self, data: LightningDataModule) -> Iterable[Exhibit]:
        """Samples, what mixes what, and what each system has of its own."""
        from . import pictures

        yield from pictures.language_model(self, cast(TextData, data))

    def _logits(self, batch: Batch) -> Tensor:
        ids, read = batch.ids[:, :-1], batch.lengths - 1
        is_full = int(read.min()) == ids.shape[1]
        if not self.training or self.segments == 1:
            return self.model(ids, None if is_full else read)
        config, state, out = self.network.config, None, []
        if not isinstance(config, RCMHAConfig):
            raise ValueError(f"segments serve models with memory, {self.variant} has none")
        for piece in ids.chunk(self.segments, 1):
            logits, state = self.network.step(piece, state and next_segment(state, config))
            out.append(logits)
        return torch.cat(out, 1)

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits, targets = self._logits(batch), batch.ids[:, 1:]
        place = torch.arange(targets.shape[1], device=targets.device)
        targets = targets.masked_fill(place >= batch.lengths[:, None] - 1, -100)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        return loss, (logits.argmax(-1) == targets).sum()

    def _measure(self, part: Literal["val", "test"], batch: Batch) -> None:
        loss, right = self._loss(batch)
        losses(self.model)  # of no use here; taken so that none is left for the next step
        tokens = int((batch.lengths - 1).sum())
        data = cast(TextData, self.trainer.datamodule)  # type: ignore[attr-defined]
        bits = loss / math.log(2) / data.bytes_per_token(part)
        values = {"loss": loss, "bits_per_byte": bits, "accuracy": right / tokens}
        for name, value in values.items():
            shown = name == "loss"
            self.log(f"{part}/{name}", value, prog_bar=shown, sync_dist=True, batch_size=tokens)
