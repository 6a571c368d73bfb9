"""Image classification by DeiT's recipe."""

from collections.abc import Iterable

import torch
from pytorch_lightning import LightningDataModule
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional import accuracy

from core_attn import losses, record
from core_attn.training import Exhibit, Task
from core_attn.training.schedules import warmup_cosine

from ..data.image_data import ImageData
from ..models import VisionTransformer, create
from . import pictures


class ImageClassification(Task):
    """Trains a named model on labelled images.

    AdamW with weight decay on matrices only; the rate rises linearly over `warmup` epochs, then
    falls as a cosine to `final_lr`, step by step.

    Args:
        variant: a name from `attn_vision.VARIANTS`.
        classes: number of labels.
        channels: colours of the images.
        image_size: side of the images, in pixels.
        patch_size: side of a patch, in pixels.
        depth: blocks; the variant's own by default.
        drop_path: probability of skipping the last block's branches.
        lr: learning rate at a batch of 512 images; it is scaled with the batch.
        final_lr: learning rate at the end, likewise scaled.
        weight_decay: of matrices.
        warmup: epochs of rising rate.
        smoothing: share of the label spread over all classes.
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of cutmix; 0 for none.
        teacher: a network whose decisions the distillation head learns; the variant must be
            distilled. It is not trained and not saved.

    Raises:
        ValueError: the variant does not exist, or a teacher is given to one without a second head.

    Source: Touvron et al., 2021, "Training data-efficient image transformers & distillation
    through attention", arXiv 2012.12877, table 9 and eq. (3).
    """

    model: VisionTransformer
    monitor = "val/accuracy"
    mode = "max"

    def __init__(
        self,
        variant: str = "deit_tiny",
        classes: int = 10,
        channels: int = 3,
        image_size: int = 32,
        patch_size: int = 4,
        depth: int | None = None,
        drop_path: float = 0.1,
        lr: float = 5e-4,
        final_lr: float = 1e-5,
        weight_decay: float = 0.05,
        warmup: int = 5,
        smoothing: float = 0.1,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        teacher: nn.Module | None = None,
    ):
        super().__init__()
        changes = {} if depth is None else {"depth": depth}
        self.model = create(
            variant, classes=classes, channels=channels, image_size=image_size,
            patch_size=patch_size, drop_path=drop_path, **changes,
        )  # fmt: skip
        if teacher is not None and not self.model.config.distilled:
            raise ValueError(f"teacher needs a distilled variant, got {variant!r}")
        self.classes, self.smoothing = classes, smoothing
        self.lr, self.final_lr, self.weight_decay, self.warmup = lr, final_lr, weight_decay, warmup
        self.mix = None
        if mixup > 0 or cutmix > 0:
            self.mix = Mixup(mixup, cutmix, label_smoothing=smoothing, num_classes=classes)
        # In a list, so that it is no submodule: neither trained nor saved.
        self._teacher = [] if teacher is None else [teacher.eval().requires_grad_(False)]

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Cross entropy on (mixed) images, plus what the layers add."""
        images, labels = batch
        if self.mix is not None:
            images, targets = self.mix(images, labels)
        else:
            targets = F.one_hot(labels, self.classes).float()
            targets = targets * (1 - self.smoothing) + self.smoothing / self.classes
        scores = self.model.head_scores(images)
        goals = [targets] * len(scores)
        if self._teacher:
            with torch.no_grad():
                decisions = self._teacher[0].to(images.device)(images).argmax(-1)
            goals[1] = F.one_hot(decisions, self.classes).float()
        each = [F.cross_entropy(s, goal) for s, goal in zip(scores, goals, strict=True)]
        loss = torch.stack(each).mean() + sum(losses(self.model).values())
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Logs loss and accuracy."""
        self._measure("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Logs loss and accuracy."""
        self._measure("test", batch)

    def predict_step(self, batch: tuple[Tensor, Tensor] | Tensor, index: int) -> Tensor:
        """The probability of each class."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self.model(images).softmax(-1)

    def configure_optimizers(self):
        """AdamW with DeiT's schedule."""
        plain, decayed = [], []
        for name, parameter in self.model.named_parameters():
            is_plain = parameter.dim() < 2 or name in self.model.no_weight_decay
            (plain if is_plain else decayed).append(parameter)
        data: ImageData = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        batch = data.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr * batch / 512)
        return warmup_cosine(
            optimizer, self.trainer, warmup=self.warmup, floor=self.final_lr / self.lr
        )

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two images of noise."""
        config = self.model.config
        return (torch.randn(2, config.channels, *config.image_sides),)

    @torch.no_grad()
    def figures(self, data: LightningDataModule) -> Iterable[Exhibit]:
        """Predictions on test images, confusion, and what each head looks at."""
        if not isinstance(data, ImageData):
            return
        images, labels = next(iter(data.test_dataloader()))
        images, labels = images[:8].to(self.device), labels[:8]
        with record(self.model, "pattern") as seen:
            scores = self.model(images)
            patterns = {name: pattern.cpu() for name, pattern in seen.items()}
        pixels = data.to_pixels(images)
        names = data.class_names or [str(i) for i in range(self.classes)]
        yield pictures.predictions(pixels, scores.softmax(-1).cpu(), labels, names)
        yield from self._confusion(data, names)
        grid, prefix = self.model.config.grid, self.model.prefix
        yield pictures.class_attention(pixels, patterns, grid, prefix)
        yield pictures.head_distances(patterns, grid, prefix)

    def _confusion(self, data: ImageData, names) -> Iterable[Exhibit]:
        counts = torch.zeros(self.classes, self.classes, dtype=torch.long)
        for images, labels in data.test_dataloader():
            guessed = self.model(images.to(self.device)).argmax(-1).cpu()
            counts.index_put_((labels, guessed), torch.tensor(1), accumulate=True)
        yield pictures.confusion(counts, names)

    def _measure(self, part: str, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        scores = self.model(images)
        self.log(f"{part}/loss", F.cross_entropy(scores, labels), sync_dist=True)
        correct = accuracy(scores, labels, "multiclass", num_classes=self.classes)
        self.log(f"{part}/accuracy", correct, prog_bar=True, sync_dist=True)
