"""Training of text classifiers."""

from collections.abc import Iterable
from typing import Any, Literal, cast

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.nn import functional as F

from core_attn import losses
from core_attn.training import Exhibit

from ..data import LabeledBatch, LabeledText
from .base import TextTask


class TextClassification(TextTask):
    """Trains a named classifier on labeled texts.

    Args:
        variant: a name from `attn_language.VARIANTS`.
        settings: those of its configuration that differ; vocab and classes come from the data.
        optimizer: AdamW, or Adam without weight decay.
        lr: largest learning rate.
        final_lr: at the end, after a cosine.
        warmup: steps of rising rate.
        betas: of the moments.
        eps: of the optimizer.
        weight_decay: of matrices.
        weights: a file that a new run starts from.

    Raises:
        ValueError: the variant or a setting does not exist or fit.
    """

    reads = LabeledText
    monitor = "val/accuracy"
    mode: Literal["min", "max"] = "max"

    def __init__(
        self,
        variant: str = "lama",
        settings: dict[str, Any] | None = None,
        optimizer: Literal["adamw", "adam"] = "adam",
        lr: float = 1e-3,
        final_lr: float = 1e-4,
        warmup: int = 20,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        weights: str | None = None,
    ):
        super().__init__(
            variant, settings, optimizer, lr, final_lr, warmup, betas, eps, weight_decay, weights
        )

    def sizes(self, data: LabeledText) -> dict[str, Any]:
        """Vocabulary and classes."""
        return {**super().sizes(data), "classes": len(data.classes)}

    def training_step(self, batch: LabeledBatch, index: int) -> Tensor:
        """Cross entropy, plus what the layers add."""
        loss = F.cross_entropy(self.model(batch.ids, batch.lengths), batch.labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss + sum(losses(self.model).values())

    def validation_step(self, batch: LabeledBatch, index: int) -> None:
        """Logs loss and accuracy."""
        self._measure("val", batch)

    def test_step(self, batch: LabeledBatch, index: int) -> None:
        """Logs loss and accuracy."""
        self._measure("test", batch)

    def predict_step(self, batch: LabeledBatch, index: int) -> Tensor:
        """The probability of each class."""
        return self.model(batch.ids, batch.lengths).softmax(-1)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two texts of random words."""
        return (torch.randint(self.tokenizer.vocab, (2, 12)),)  # type: ignore[union-attr]

    def figures(self, data: LightningDataModule) -> Iterable[Exhibit]:
        """Confusion, and the words that weigh."""
        from . import pictures

        yield from pictures.classification(self, cast(LabeledText, data))

    def _measure(self, part: str, batch: LabeledBatch) -> None:
        scores = self.model(batch.ids, batch.lengths)
        losses(self.model)
        right = (scores.argmax(-1) == batch.labels).float().mean()
        values = {"loss": F.cross_entropy(scores, batch.labels), "accuracy": right}
        for name, value in values.items():
            shown, rows = name == "accuracy", len(batch.labels)
            self.log(f"{part}/{name}", value, prog_bar=shown, sync_dist=True, batch_size=rows)
