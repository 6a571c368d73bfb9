"""Training of click models."""

import json
import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from core_attn.training import Exhibit, Task

from .. import metrics
from ..calibration import Probability, Served, calibrator_from
from ..data.batches import Batch
from ..data.module import ClickData
from ..layout import Layout
from ..losses import official_log_loss, official_mse
from ..models import AutoInt, AutoIntConfig, BaselineConfig, Model
from ..optim import SPARSE, make_optimizer
from ..report import exhibits
from ..schema import PreparedSchema

OptimizerName = Literal[
    "adam_tf", "adam", "adagrad_tf", "deferred_adam", "lazy_adam", "row_adagrad"
]


class ClickTask(Task):
    """Base of the click tasks; the network is built once the data's vocabulary is known.

    Args:
        optimizer: of the tables: "deferred_adam" (the numbers of dense Adam in TensorFlow's form
            at the price of the batch's rows), "adam_tf", "adam", "adagrad_tf", "lazy_adam" or
            "row_adagrad".
        lr: step size of the network.
        table_lr: of the tables; `lr` if None.
        table_weight_decay: L2 on the tables, with optimizer "adam".
        loss: "bce" on logits; "official", with 1e-7 inside the logarithms; "mse" on the raw output.
        l2_deep: half its square sum over the deep part's kernels is added to the loss.
        start_at_base_rate: whether the output bias starts at the training rows' log odds.
    """

    monitor = "val/logloss"
    prepared: PreparedSchema | None = None

    def __init__(
        self,
        optimizer: OptimizerName = "deferred_adam",
        lr: float = 1e-3,
        table_lr: float | None = None,
        table_weight_decay: float = 0.0,
        loss: Literal["bce", "official", "mse"] = "bce",
        l2_deep: float = 0.0,
        start_at_base_rate: bool = True,
    ):
        super().__init__()
        self.optimizer_name: OptimizerName = optimizer
        self.lr, self.table_lr, self.table_weight_decay = lr, table_lr, table_weight_decay
        self.loss_name, self.l2_deep = loss, l2_deep
        self.start_at_base_rate = start_at_base_rate
        self.model = Unbuilt()
        self.probability = Probability()
        self.seen: list[dict[str, Tensor]] = []

    @abstractmethod
    def build(self, layout: Layout, *, sparse: bool) -> Model:
        """Makes the network."""

    @property
    def schema_hash(self) -> str:
        """Of the data the network was built for."""
        assert self.prepared is not None
        return self.prepared.hash

    def network_model(self) -> Model:
        """The built network, in eval mode."""
        assert isinstance(self.model, Model)
        return self.model.eval()

    # ---- building ----

    def configure_model(self) -> None:
        """Builds the network for the data module's schema, unless that is done."""
        if isinstance(self.model, Unbuilt):
            self._build(self.trainer.datamodule.prepared)  # type: ignore[attr-defined]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the schema, from which the network is built again, and the calibration if any."""
        assert self.prepared is not None
        checkpoint["prepared"] = json.dumps(self.prepared.to_dict())
        if self.probability.calibrator is not None:
            checkpoint["calibration"] = json.dumps(self.probability.calibrator.to_dict())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the network, or checks that it is for the same fields and vocabularies.

        Raises:
            ValueError: it is not.
        """
        stored = PreparedSchema.from_dict(json.loads(checkpoint["prepared"]))
        if self.prepared is None:
            self._build(stored)
        else:
            self.prepared.check_same(stored.hash, "the checkpoint")
        if "calibration" in checkpoint:
            self.probability.calibrator = calibrator_from(json.loads(checkpoint["calibration"]))

    def _build(self, prepared: PreparedSchema) -> None:
        model = self.build(prepared.layout, sparse=self.optimizer_name in SPARSE)
        if self.start_at_base_rate and 0 < prepared.base_rate < 1:
            with torch.no_grad():
                rate = prepared.base_rate
                model.output_bias.fill_(math.log(rate / (1 - rate)))  # type: ignore[operator]
        if isinstance(self.model, Unbuilt) and self.model.wanted is not None:
            model.compile(**self.model.wanted)
        self.model, self.prepared = model, prepared
        self.probability = Probability(prepared.negative_rate, of_logits=self.loss_name != "mse")

    # ---- training ----

    def on_fit_start(self) -> None:
        """Forgets the calibration of weights that now change."""
        super().on_fit_start()
        self.probability.calibrator = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The tables' optimiser and the network's."""
        return make_optimizer(
            self.model,
            self.optimizer_name,
            lr=self.lr,
            table_lr=self.table_lr,
            table_weight_decay=self.table_weight_decay,
        )

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, without the penalty."""
        if self.loss_name == "official":
            return official_log_loss(logits, labels)
        if self.loss_name == "mse":
            return official_mse(logits, labels)
        return F.binary_cross_entropy_with_logits(logits, labels)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        loss = self.loss(self.model(batch["index"], batch["value"]), batch["label"])
        self.log("train/loss", loss.detach(), prog_bar=True)
        if self.l2_deep and isinstance(self.model, AutoInt) and self.model.deep is not None:
            squares = [layer.weight.square().sum() for layer in self.model.deep.maps]
            loss = loss + self.l2_deep * torch.stack(squares).sum() / 2
        return loss

    # ---- evaluation ----

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps labels and probabilities for the metrics."""
        kept = {"label": batch["label"], "p": self.predict_step(batch, batch_idx)}
        if "group" in batch:
            kept["group"] = batch["group"]
        self.seen.append({name: x.detach().cpu() for name, x in kept.items()})

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As in validation."""
        self.validation_step(batch, batch_idx)

    def logits(self, batch: Batch) -> Tensor:
        """Log odds among all rows, before calibration."""
        return self.probability.logits(self.model(batch["index"], batch["value"]))

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Tensor:
        """Probabilities, corrected for a down-sampling of the training rows and calibrated."""
        return self.probability(self.model(batch["index"], batch["value"]))

    def on_validation_epoch_end(self) -> None:
        """Logs AUC, log loss and calibration."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Logs AUC, log loss and calibration."""
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        seen, self.seen = self.seen, []
        if distributed.is_available() and distributed.is_initialized():
            parts: list = [None] * distributed.get_world_size()
            distributed.all_gather_object(parts, seen)
            seen = [batch for part in parts for batch in part]
        joined = {name: torch.cat([x[name] for x in seen]).numpy() for name in seen[0]}
        labels, p = joined["label"], joined["p"].astype(np.float64)
        if self.trainer.sanity_checking:
            return
        found = metrics.summary(labels, p)
        if "group" in joined:
            found["grouped_auc"] = metrics.grouped_auc(labels, p, joined["group"])
        self.log_dict({f"{stage}/{name}": value for name, value in found.items()})

    # ---- report and export ----

    def figures(self, data: LightningDataModule) -> Iterable[Exhibit]:
        """Calibration, attention between fields, interacting pairs."""
        if not isinstance(data, ClickData):
            raise TypeError(f"data must be a ClickData, got {type(data).__name__}")
        return exhibits(self, data)

    def exported(self) -> nn.Module:
        """The network with its probabilities."""
        return Served(self.model, self.probability)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Ids and values of three rows."""
        assert self.prepared is not None
        layout = self.prepared.layout
        widths = torch.tensor(layout.widths)
        first = torch.tensor(layout.firsts).repeat_interleave(widths)
        size = torch.tensor(layout.sizes).repeat_interleave(widths)
        index = torch.stack([first, first + size - 1, first + size // 2])
        value = torch.ones(3, layout.slots)
        value[1, ::2] = 0
        return index, value


class AutoIntTask(ClickTask):
    """AutoInt, or AutoInt+ with `deep_widths`.

    Args:
        config: the network's switches.
        optimizer, lr, table_lr, table_weight_decay, loss, l2_deep, start_at_base_rate: as in
            `ClickTask`.
    """

    def __init__(
        self,
        config: AutoIntConfig = AutoIntConfig(),  # noqa: B008 (frozen)
        optimizer: OptimizerName = "deferred_adam",
        lr: float = 1e-3,
        table_lr: float | None = None,
        table_weight_decay: float = 0.0,
        loss: Literal["bce", "official", "mse"] = "bce",
        l2_deep: float = 0.0,
        start_at_base_rate: bool = True,
    ):
        super().__init__(
            optimizer, lr, table_lr, table_weight_decay, loss, l2_deep,
            start_at_base_rate and config.init == "zero",
        )  # fmt: skip
        self.config = config

    def build(self, layout: Layout, *, sparse: bool) -> Model:
        """AutoInt."""
        return self.config.build(layout, sparse=sparse)


class BaselineTask(ClickTask):
    """One of the models AutoInt is compared with.

    Args:
        config: which, and its sizes.
        optimizer, lr, table_lr, table_weight_decay, loss, l2_deep, start_at_base_rate: as in
            `ClickTask`.
    """

    def __init__(
        self,
        config: BaselineConfig = BaselineConfig(),  # noqa: B008 (frozen)
        optimizer: OptimizerName = "deferred_adam",
        lr: float = 1e-3,
        table_lr: float | None = None,
        table_weight_decay: float = 0.0,
        loss: Literal["bce", "official", "mse"] = "bce",
        l2_deep: float = 0.0,
        start_at_base_rate: bool = True,
    ):
        super().__init__(
            optimizer, lr, table_lr, table_weight_decay, loss, l2_deep, start_at_base_rate
        )
        self.config = config

    def build(self, layout: Layout, *, sparse: bool) -> Model:
        """The baseline."""
        return self.config.build(layout, sparse=sparse)


class Unbuilt(nn.Module):
    """Stands where the network will be, and remembers that it shall be compiled."""

    wanted: dict[str, Any] | None = None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Keeps the wish."""
        self.wanted = kwargs
