"""Training with fewer and fewer tokens."""

import math
from typing import Any

from torch import Tensor, nn

from ..models.evit import EViT
from .classification import ImageClassification


def keep_rate_at(step: int, rate: float, *, steps_per_epoch: int, start: int, length: int) -> float:
    """The share of tokens kept at a step: 1, then half a cosine down to `rate`.

    Args:
        step: counted from 0.
        rate: in the end.
        steps_per_epoch: optimizer steps of an epoch.
        start: epochs at 1.
        length: epochs of the fall.

    Source: Liang et al., 2022, "EViT", arXiv 2202.07800, appendix; the official code.

    Example:
        >>> [round(keep_rate_at(s, 0.5, steps_per_epoch=1, start=1, length=2), 3) for s in range(4)]
        [1.0, 1.0, 0.75, 0.5]
    """
    first, last = start * steps_per_epoch, (start + length) * steps_per_epoch
    if step < first:
        return 1.0
    if step >= last:
        return rate
    return rate + (1 - rate) * (1 + math.cos(math.pi * (step - first) / (last - first))) / 2


class TokenReduction(ImageClassification):
    """Image classification with an EViT whose keep rate falls while it trains.

    Args:
        keep_rate: share of the tokens kept in the end and in evaluation, at the blocks that shrink.
        start: epochs that keep all.
        length: epochs of the fall.
        still: whether the network is trained in evaluation mode, as for fine-tuning.
        variant: an EViT.

    The other arguments are those of `ImageClassification`.

    Raises:
        ValueError: the variant is none, or a number is outside its range.
    """

    def __init__(
        self,
        keep_rate: float = 0.7,
        start: int = 10,
        length: int = 100,
        still: bool = False,
        variant: str = "evit_tiny",
        settings: dict[str, Any] | None = None,
        weights: str | None = None,
        classes: int | None = None,
        lr: float = 5e-4,
        lr_batch: int = 512,
        final_lr: float = 1e-5,
        weight_decay: float = 0.05,
        warmup: float = 5,
        smoothing: float = 0.1,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        teacher: nn.Module | None = None,
    ):
        super().__init__(
            variant, settings, weights, classes, lr, lr_batch, final_lr, weight_decay, warmup,
            smoothing, mixup, cutmix, teacher,
        )  # fmt: skip
        if not 0 < keep_rate <= 1:
            raise ValueError(f"keep_rate must be in (0, 1], got {keep_rate}")
        if start < 0 or length < 0:
            raise ValueError(f"start and length must be at least 0, got {start} and {length}")
        rates = getattr(self.check_settings(), "keep_rates", None)
        if rates is None:
            raise ValueError(f"variant must be an EViT, got {variant!r}")
        self.settings["keep_rates"] = tuple(keep_rate if rate < 1 else 1.0 for rate in rates)
        self.keep_rate, self.start, self.length, self.still = keep_rate, start, length, still

    def on_train_epoch_start(self) -> None:
        """Puts the network in evaluation mode where it is to stand still."""
        if self.still:
            self.network.eval()

    def scores(self, images: Tensor) -> tuple[Tensor, ...]:
        """Scores at the present keep rate, of both heads where there is a teacher."""
        model = self.network
        if not isinstance(model, EViT):
            raise ValueError(f"variant must be an EViT, got {type(model).__name__}")
        accumulated = self.trainer.accumulate_grad_batches
        steps = math.ceil(self.trainer.num_training_batches / accumulated)
        rate = keep_rate_at(
            self.trainer.global_step, self.keep_rate, steps_per_epoch=steps, start=self.start,
            length=self.length,
        )  # fmt: skip
        self.log("train/keep_rate", rate, on_step=False, on_epoch=True)
        last = model.features(images, keep_rate=rate)
        return model.scores_of(last) if self._teacher else (model.classified(last),)
