"""Training classifiers of utterances."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.nn import functional as F

from core_attn import Mean, importance_factor, record
from core_attn.training import Exhibit

from ..data.utterances import Statistics, UtteranceBatch, UtteranceData
from ..models import GaamClassifier, GaamConfig, focal_loss
from ..official import gaam as daam
from . import pictures
from .sized_by_data import SizedByData


class UtteranceClassification(SizedByData):
    """Trains a classifier on stacked features; layers, features and classes are the data's.

    Args:
        config: sizes and options.
        loss: "focal" or "cross_entropy".
        lr: learning rate of AdamW.
        weight_decay: of AdamW.
        patience: epochs without a better accuracy after which the rate is divided by ten.
        weights: a file to start from: a checkpoint of this package, or of the experiments' code.

    Source: Ioannides et al., 2024, arXiv 2401.11143, section 4.
    """

    model: GaamClassifier
    monitor = "val/accuracy"
    mode = "max"

    def __init__(
        self,
        config: GaamConfig = GaamConfig(),  # noqa: B008
        loss: Literal["focal", "cross_entropy"] = "focal",
        lr: float = 1e-4,
        weight_decay: float = 0.01,
        patience: int = 10,
        weights: str | None = None,
    ):
        super().__init__()
        if lr <= 0:
            raise ValueError(f"lr must be positive, got {lr}")
        self.config, self.loss, self.lr, self.weight_decay = config, loss, lr, weight_decay
        self.patience, self.weights = patience, weights
        self.class_names: list[str] = []
        self.statistics: Statistics | None = None
        self.counts = torch.zeros(0, 0, dtype=torch.long)

    def build_for(self, data: LightningDataModule) -> None:
        """Builds the network for the features and classes of the data."""
        if not isinstance(data, UtteranceData):
            raise ValueError(
                f"UtteranceClassification needs UtteranceData, got {type(data).__name__}"
            )
        self._build(*data.shape, data.class_names)
        self.statistics = data.statistics

    def _build(self, layers: int, dim: int, class_names: list[str]) -> None:
        self.class_names = class_names
        self.config = replace(self.config, layers=layers, dim=dim, classes=len(class_names))
        self.model = self.network(self.config)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the numbers mean."""
        checkpoint["utterances"] = {
            "layers": self.config.layers, "dim": self.config.dim, "class_names": self.class_names,
            "statistics": None if self.statistics is None else self.statistics._asdict(),
        }  # fmt: skip

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the network as it was.

        Raises:
            ValueError: the checkpoint is of another task, or the classes are others.
        """
        kept = checkpoint.get("utterances")
        if kept is None:
            raise ValueError("the checkpoint is not one of a classifier of utterances")
        if not hasattr(self, "model"):
            self._build(kept["layers"], kept["dim"], kept["class_names"])
            if kept.get("statistics"):
                self.statistics = Statistics(**kept["statistics"])
        elif kept["class_names"] != self.class_names:
            raise ValueError(
                f"the checkpoint knows the classes {', '.join(kept['class_names'])}, "
                f"the data have {', '.join(self.class_names)}"
            )

    def adapted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights of the experiments' code under our names; ours as they are."""
        return daam.renamed(state) if any(key.startswith("daam.") for key in state) else state

    def training_step(self, batch: UtteranceBatch, index: int) -> Tensor:
        """The loss."""
        loss = self._loss(self.model(batch.x), batch.labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: UtteranceBatch, index: int) -> None:
        """Logs loss and accuracy."""
        scores = self.model(batch.x)
        right = (scores.argmax(-1) == batch.labels).float().mean()
        count = len(batch.labels)
        self.log("val/loss", self._loss(scores, batch.labels), batch_size=count, sync_dist=True)
        self.log("val/accuracy", right, prog_bar=True, batch_size=count, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Begins anew to count."""
        classes = len(self.class_names)
        self.counts = torch.zeros(classes, classes, dtype=torch.long)

    def test_step(self, batch: UtteranceBatch, index: int) -> None:
        """Counts what is taken for what."""
        self._count(batch)

    def on_test_epoch_end(self) -> None:
        """Logs accuracy and unweighted average recall."""
        self.log("test/accuracy", accuracy(self.counts))
        self.log("test/average_recall", average_recall(self.counts))

    def predict_step(self, batch: UtteranceBatch, index: int) -> Tensor:
        """The probability of each class."""
        return self.model(batch.x).softmax(-1)

    def configure_optimizers(self):
        """AdamW whose rate falls when the accuracy stands still."""
        optimizer = torch.optim.AdamW(
            self.model.parameters(), self.lr, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, "max", factor=0.1, patience=self.patience
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "monitor": "val/accuracy", "strict": False},
        }

    @torch.no_grad()
    def figures(self, data: LightningDataModule) -> Iterable[Exhibit]:
        """Confusion, and the importance factor of each layer and feature."""
        if not isinstance(data, UtteranceData):
            return
        self.on_test_epoch_start()
        if self.model.gate is None:
            for batch in data.test_dataloader():
                self._count(batch)
            yield from pictures.classification(self.counts, self.class_names, None)
            return
        with record(self.model, "gate", Mean) as seen:
            for batch in data.test_dataloader():
                self._count(batch)
            gate = importance_factor(seen["gate"])
        yield from pictures.classification(self.counts, self.class_names, gate)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two utterances of noise."""
        return (torch.randn(2, self.config.layers, self.config.dim),)

    def _count(self, batch: UtteranceBatch) -> None:
        guessed = self.model(batch.x).argmax(-1)
        self.counts.index_put_(
            (batch.labels.cpu(), guessed.cpu()), torch.tensor(1), accumulate=True
        )

    def _loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return (focal_loss if self.loss == "focal" else F.cross_entropy)(scores, labels)


def accuracy(counts: Tensor) -> float:
    """The share that is right, of a matrix of true by predicted classes."""
    return float(counts.diagonal().sum() / counts.sum())


def average_recall(counts: Tensor) -> float:
    """The mean over the classes that occur of their share that is right."""
    occurs = counts.sum(1) > 0
    return float((counts.diagonal()[occurs] / counts.sum(1)[occurs]).mean())
