"""Making a dense vision transformer sparse: its predictors learn, then it learns with them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn.training.schedules import rate_factor, run_length, stepwise

from ..models import VisionTransformer, VisionTransformerConfig
from ..models.sparsifiner import Sparsifiner, reconstruction_loss
from ..official import adapted
from ..official._fields import fitting
from .classification import ImageClassification


class Sparsification(ImageClassification):
    """Trains a Sparsifiner from a dense model, which stays as its teacher.

    For `predictor_epochs` only the predictors learn, to reconstruct the attention of the dense
    model; then only the backbone, by labels and by the teacher's classes and patch features.

    Args:
        dense: a file with the dense model's weights: DeiT, timm, or a run of this program. It is
            needed once; checkpoints hold the teacher.
        predictor_epochs: epochs of the first phase.
        predictor_lr: learning rate of the predictors; not scaled with the batch.
        predictor_final_lr: in the end of the first phase.
        lr: that of the backbone; not scaled.
        final_lr: in the end of the second phase.
        class_distillation: weight of the divergence from the teacher's classes.
        token_distillation: weight of the squared error of patch features.
        reconstruction: weight of the first phase's loss.
        variant: a Sparsifiner.

    The other arguments are those of `ImageClassification`.

    Raises:
        ValueError: there is no file of the dense model, the variant is no Sparsifiner, or a number
            is outside its range.

    Source: Wei et al., 2023, "Sparsifiner: Learning Sparse Instance-Dependent Attention for
    Efficient Vision Transformers", arXiv 2303.13755, section 3.4; the official code's settings.
    """

    def __init__(
        self,
        dense: str,
        predictor_epochs: int = 5,
        predictor_lr: float = 3e-4,
        predictor_final_lr: float = 2e-4,
        lr: float = 8e-5,
        final_lr: float = 2e-6,
        class_distillation: float = 0.5,
        token_distillation: float = 0.5,
        reconstruction: float = 0.01,
        variant: str = "sparsifiner_tiny",
        settings: dict[str, Any] | None = None,
        classes: int | None = None,
        weight_decay: float = 0.05,
        warmup: float = 3,
        smoothing: float = 0.1,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ):
        super().__init__(
            variant, settings, dense, classes, lr, 0, final_lr, weight_decay, warmup, smoothing,
            mixup, cutmix,
        )  # fmt: skip
        if predictor_epochs < 0 or predictor_lr <= 0 or predictor_final_lr < 0:
            raise ValueError(
                "predictor_epochs and predictor_final_lr must be at least 0 and predictor_lr "
                f"positive, got {predictor_epochs}, {predictor_final_lr} and {predictor_lr}"
            )
        self.predictor_epochs, self.predictor_lr = predictor_epochs, predictor_lr
        self.predictor_final_lr = predictor_final_lr
        self.class_distillation = class_distillation
        self.token_distillation = token_distillation
        self.reconstruction = reconstruction
        self.teacher: nn.Module | None = None

    def build(self, sizes: Mapping[str, Any]) -> None:
        """Makes the network and its teacher."""
        super().build(sizes)
        if not isinstance(self.model, Sparsifiner):
            raise ValueError(f"variant must be a Sparsifiner, got {self.variant!r}")
        config = self.model.config
        shared = {f.name: getattr(config, f.name) for f in fields(VisionTransformerConfig)}
        self.teacher = VisionTransformer(VisionTransformerConfig(**shared))
        self.teacher.requires_grad_(False)

    def adapted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The dense weights, which the teacher must get whole, its head for the same classes too.

        Raises:
            ValueError: they are of another model or for other classes; what differs is named.
        """
        assert isinstance(self.teacher, VisionTransformer)
        ours = fitting(adapted(state, self.teacher), self.teacher.config, "dense model")
        self.teacher.load_state_dict(ours)
        return ours

    @property
    def predicting(self) -> bool:
        """Whether it is the predictors that learn."""
        return self.current_epoch < self.predictor_epochs

    def on_train_epoch_start(self) -> None:
        """Lets one part learn and holds the other; the teacher never learns."""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(("mask_predictor" in name) == self.predicting)
        assert self.teacher is not None
        self.teacher.eval()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of the present phase."""
        model, teacher = self.network, self.teacher
        assert isinstance(model, Sparsifiner) and isinstance(teacher, VisionTransformer)
        images, targets = self.targets(*batch)
        if self.predicting:
            # The backbone is still the dense model: its own attention is the teacher's.
            loss = self.reconstruction * reconstruction_loss(model.reconstructed(images))
            self.log("train/reconstruction", loss, on_step=False, on_epoch=True, sync_dist=True)
            return loss
        with torch.no_grad():
            taught = teacher.features(images)
            wanted = teacher.head(teacher.pool(taught)).log_softmax(-1)
        state = model.features(images)
        scores = model.head(model.pool(state))
        errors = (state.patches - taught.patches).square()
        if state.alive is not None:
            errors = errors[state.alive]
        apart = F.kl_div(scores.log_softmax(-1), wanted, log_target=True, reduction="batchmean")
        loss = F.cross_entropy(scores, targets) + self.class_distillation * apart
        loss = loss + self.token_distillation * errors.mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def configure_optimizers(self):
        """AdamW; the rate of each part rises and falls in the phase in which it learns."""
        parts: dict[bool, list] = {True: [], False: []}
        for name, parameter in self.network.named_parameters():
            decay = self.weight_decay if parameter.dim() > 1 else 0.0
            group = {"params": [parameter], "weight_decay": decay}
            predicts = "mask_predictor" in name
            parts[predicts].append(group | {"lr": self.predictor_lr if predicts else self.lr})
        optimizer = torch.optim.AdamW([*parts[True], *parts[False]])
        run = run_length(self.trainer)
        first, rising = self.predictor_epochs * run.epoch, self.warmup * run.epoch
        floors = (self.predictor_final_lr / self.predictor_lr, self.final_lr / self.lr)
        predictors = rate_factor(min(first, run.steps), rising, floors[0])
        backbone = rate_factor(max(run.steps - first, 1), rising, floors[1], run.elapsed)
        return stepwise(
            optimizer,
            [
                *[predictors] * len(parts[True]),
                *[lambda step: backbone(max(step - first, 0))] * len(parts[False]),
            ],
        )
