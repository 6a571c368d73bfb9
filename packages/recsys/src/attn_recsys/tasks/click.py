"""Training of click models."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from core_attn.training import Exhibit, Task
from core_attn.training.callbacks import LastCheckpoint

from .. import metrics
from ..calibration import Probability, Served, calibrator_from
from ..data.batches import Batch
from ..data.module import ClickData
from ..data.prepare import load_vocabulary, map_vocabulary
from ..layout import Layout
from ..losses import official_log_loss, official_mse
from ..models import AutoInt, Model
from ..notes import note
from ..optim import SPARSE, for_processes, make_optimizer
from ..optim.pair import Name as OptimizerName
from ..pretrained import start_from_vectors
from ..report import exhibits
from ..schema import PreparedSchema
from ..scoring import described, packed, tables_beside
from ..warm import is_new, rows_before, warm_moments, warm_weights


class ClickTask(Task, ABC):
    """Base of the click tasks; the network is built once the data's vocabulary is known.

    Args:
        optimizer: of the tables: "deferred_adam" (the numbers of dense Adam in TensorFlow's form
            at the price of the batch's rows; in several processes it is dense), "adam_tf", "adam",
            "adagrad_tf", "lazy_adam" or "row_adagrad" (both for one process).
        lr: step size of the network.
        table_lr: of the tables; `lr` if None.
        table_weight_decay: L2 on the tables, with optimizer "adam".
        loss: "bce" on logits; "official", with 1e-7 inside the logarithms; "mse" on the raw output.
        l2_deep: half its square sum over the deep part's kernels is added to the loss.
        start_at_base_rate: whether the output bias starts at the training rows' log odds.
        rare_rate: share of a field's cells that take the row of rare and unseen values in training,
            so that it is trained where every training value has a row of its own (min_count 1);
            None for the share of such cells among the validation rows, at most a tenth.
        start: a checkpoint whose weights and moments a new run begins with; its data must extend
            that checkpoint's vocabularies (`extends` of `TableData`).
        pretrained: for a field, a Parquet file with the columns `id` and `vector`, from which the
            table rows of its values start in a new run; longer vectors are reduced to `dim`.
        tables: "copied" to every process, or dealt out to them by "torchrec", for tables larger
            than one device; in one process that is the same.
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
        rare_rate: float | None = 0.0,
        start: str | None = None,
        pretrained: dict[str, str] | None = None,
        tables: Literal["copied", "torchrec"] = "copied",
    ):
        super().__init__()
        self.tables, self._sharded = tables, {}
        self.start, self.pretrained = start, pretrained
        self._moments: list[dict[str, Any]] = []
        if rare_rate is not None and not 0 <= rare_rate < 1:
            raise ValueError(f"rare_rate must be in [0, 1), got {rare_rate}")
        self.rare_rate = rare_rate
        self.optimizer_name: OptimizerName = optimizer
        self.lr, self.table_lr, self.table_weight_decay = lr, table_lr, table_weight_decay
        self.loss_name, self.l2_deep = loss, l2_deep
        self.start_at_base_rate = start_at_base_rate
        self.model = Unbuilt()
        self.probability = Probability()
        self._rare: tuple[Tensor, Tensor] | None = None
        self._packed: dict[str, Tensor] | None = None
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
        if self.trainer.world_size > 1 and self.trainer.training:
            self.optimizer_name = for_processes(self.optimizer_name)
        if isinstance(self.model, Unbuilt):
            self._build(self.trainer.datamodule.prepared)  # type: ignore[attr-defined]
            fits = self.trainer.training and self.trainer.ckpt_path is None
            if self.pretrained and fits and self.start is None:
                assert self.prepared is not None and isinstance(self.model, Model)
                folder = self.trainer.datamodule.prepared_folder  # type: ignore[attr-defined]
                vocabulary = load_vocabulary(folder, self.prepared)
                start_from_vectors(self.model, self.pretrained, vocabulary, self.prepared)
            if self.start is not None and fits:
                self._start_warm(self.start)
            if self.tables == "torchrec" and self.trainer.world_size > 1:
                from ..sharding import ignored_by_ddp, shard_tables

                self._sharded = shard_tables(self.model)
                ignored_by_ddp(self, [f"model.{name}" for name in self._sharded])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the schema, from which the network is built again, and the calibration if any."""
        assert self.prepared is not None
        checkpoint["prepared"] = json.dumps(self.prepared.to_dict())
        checkpoint["network"] = json.dumps(described(self.model, self.probability))
        if (tables := self._tables()) is not None:
            checkpoint["vocabulary"] = tables
        if self.probability.calibrator is not None:
            checkpoint["calibration"] = json.dumps(self.probability.calibrator.to_dict())
        for table in self._sharded.values():
            checkpoint["optimizer_states"] = table.whole_states(checkpoint["optimizer_states"])

    def _tables(self) -> dict[str, Tensor] | None:
        """The vocabularies; where they are too large for a checkpoint they are put beside it."""
        assert self.prepared is not None
        if self._packed is None:
            folder = self.trainer.datamodule.prepared_folder  # type: ignore[attr-defined]
            self._packed = packed(folder, self.prepared) or {}
            callbacks: list = self.trainer.callbacks  # type: ignore[attr-defined]
            beside = [x.path.parent for x in callbacks if isinstance(x, LastCheckpoint)]
            large = self.prepared.rare and not self._packed
            if large and beside and self.trainer.is_global_zero:
                map_vocabulary(folder, tables_beside(beside[0], self.prepared))
        small = self._packed or not self.prepared.rare
        return self._packed if small else None

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
        for table in self._sharded.values():
            checkpoint["optimizer_states"] = table.own_states(checkpoint["optimizer_states"])

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

    def _start_warm(self, path: str) -> None:
        """Takes over the weights and moments of a checkpoint, for vocabularies that have grown."""
        from core_attn.training.files import read_checkpoint

        assert self.prepared is not None
        content, new = read_checkpoint(path), self.prepared
        old = PreparedSchema.from_dict(json.loads(content["prepared"]))
        if old.schema.to_dict()["fields"] != new.schema.to_dict()["fields"]:
            raise ValueError(f"{path} was trained on other fields; continue with its schema")
        source, fresh = rows_before(old, new), is_new(old, new)
        prefix = "model."
        state = {k.removeprefix(prefix): x for k, x in content["state_dict"].items() if prefix in k}
        self.model.load_state_dict(warm_weights(self.model, state, source))
        self._moments = [
            warm_moments(optimizer, source, fresh, old.layout.rows)
            for optimizer in content["optimizer_states"]
        ]
        if self.trainer.is_global_zero:
            grown = zip(new.layout.names, new.layout.sizes, old.layout.sizes, strict=True)
            new_values = [f"{name} {n - m:,}" for name, n, m in grown if n > m]
            print(f"from {path}, as a new version; new values: {', '.join(new_values) or 'none'}")

    # ---- training ----

    def on_fit_start(self) -> None:
        """Forgets the calibration of weights that now change."""
        super().on_fit_start()
        self.probability.calibrator = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The tables' optimiser and the network's."""
        optimizer = make_optimizer(
            self.model,
            self.optimizer_name,
            lr=self.lr,
            table_lr=self.table_lr,
            table_weight_decay=self.table_weight_decay,
        )
        for state in self._moments:
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate  # of this run, not of the one that left the moments
        self._moments = []
        return optimizer

    def loss(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch, without the penalty."""
        if weight is not None:
            if self.loss_name != "bce":
                raise ValueError(f"a weight column needs loss 'bce', got {self.loss_name!r}")
            each = F.binary_cross_entropy_with_logits(logits, labels, weight, reduction="sum")
            return each / weight.sum().clamp(min=1e-12)
        if self.loss_name == "official":
            return official_log_loss(logits, labels)
        if self.loss_name == "mse":
            return official_mse(logits, labels)
        return F.binary_cross_entropy_with_logits(logits, labels)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        logits = self.model(self._some_rare(batch["index"]), batch["value"])
        loss = self.loss(logits, batch["label"], batch.get("weight"))
        parallel = self.trainer.world_size > 1
        self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=parallel)
        if self.l2_deep and isinstance(self.model, AutoInt) and self.model.deep is not None:
            squares = [layer.weight.square().sum() for layer in self.model.deep.maps]
            loss = loss + self.l2_deep * torch.stack(squares).sum() / 2
        return loss

    def _some_rare(self, index: Tensor) -> Tensor:
        """Ids of which some are those of rare values, at random."""
        if self.rare_rate == 0 or self.prepared is None:
            return index
        if self._rare is None:
            self._rare = rare_cells(self.prepared, self.rare_rate)
        rows, rates = (x.to(index.device) for x in self._rare)
        chosen = torch.rand(index.shape, device=index.device) < rates
        return torch.where(chosen & (index != 0), rows, index)

    def samples(self, batch: Batch) -> int:
        """Its rows."""
        return len(batch["label"])

    # ---- evaluation ----

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps labels and probabilities for the metrics."""
        kept = {"label": batch["label"], "p": self.predict_step(batch, batch_idx)}
        if "group" in batch:
            kept["group"] = batch["group"]
        if "weight" in batch:
            kept["weight"] = batch["weight"]
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
        if self.trainer.sanity_checking or not seen:
            return
        joined = {name: torch.cat([x[name] for x in seen]).numpy() for name in seen[0]}
        labels, p = joined["label"], joined["p"].astype(np.float64)
        found = metrics.summary(labels, p, joined.get("weight"))
        if "auc" not in found:
            self._note(f"{stage}/auc is undefined: all {len(labels):,} rows have one label")
        elif found["normalized_entropy"] > 1:
            self._note(
                f"{stage}/normalized_entropy is {found['normalized_entropy']:.4f}, above 1: worse "
                "than the base rate; are fields or probabilities far out of their training range?"
            )
        if "group" in joined:
            cutoffs = (5, 10) if stage == "test" else ()
            found |= metrics.by_group(labels, p, joined["group"], cutoffs)
            if "grouped_auc" not in found:
                self._note(f"{stage}/grouped_auc is undefined: no group has both labels")
        self.log_dict({f"{stage}/{name}": value for name, value in found.items()})

    def _note(self, line: str) -> None:
        if self.trainer.is_global_zero:
            note(line)

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


def rare_cells(prepared: PreparedSchema, rate: float | None) -> tuple[Tensor, Tensor]:
    """For each slot the row of its field's rare values, and how often it is taken in training.

    Args:
        prepared: tells the fields' rare rows, and how often they are met in validation.
        rate: as `ClickTask`'s `rare_rate`.
    """
    slots = prepared.layout.slot_names()
    never = {f.name for f in prepared.schema.fields if f.min_count == 1 and not f.buckets}
    rates = [
        0.0 if name not in never or name not in prepared.rare
        else min(prepared.unseen[name], 0.1) if rate is None else rate
        for name in slots
    ]  # fmt: skip
    return torch.tensor([prepared.rare.get(name, 0) for name in slots]), torch.tensor(rates)


class Unbuilt(nn.Module):
    """Stands where the network will be, and remembers that it shall be compiled."""

    wanted: dict[str, Any] | None = None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Keeps the wish."""
        self.wanted = kwargs
