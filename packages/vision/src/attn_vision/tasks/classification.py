"""Image classification by DeiT's recipe."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional import accuracy

from core_attn import losses
from core_attn.training import Exhibit, Task
from core_attn.training.checkpoint import check_fits
from core_attn.training.schedules import warmup_cosine
from core_attn.variants import variant

from ..data.image_data import ImageData
from ..models import VARIANTS, ImageConfig, ImageModel
from ..models.batch_norm import synchronized
from ..official import adapted
from . import model_pictures, pictures
from .optimization import parameter_groups


class Unbuilt(nn.Module):
    """Stands in for a network until the data say how large it is."""


class ImageClassification(Task):
    """Trains a named model on labelled images.

    The data decide how large images are, how many colors they have, and which classes there are.
    Over several GPUs batch norms take the statistics of all batches. AdamW with weight decay on
    matrices only; the rate rises linearly over `warmup` epochs, then falls as a cosine to
    `final_lr`, step by step.

    Args:
        variant: a name from `attn_vision.VARIANTS`.
        settings: fields of the variant's configuration that differ, as `patch_size` or `depth`.
        weights: a file that the run starts from: an official checkpoint of the variant, or one of
            this program. Positions are resized; a head for other classes stays new.
        classes: how many the data must have; where none is given, any number.
        lr: learning rate at a batch of `lr_batch` images; it is scaled with the batch.
        lr_batch: 0 for a rate that is not scaled.
        final_lr: learning rate at the end, likewise scaled.
        weight_decay: of matrices.
        warmup: epochs of rising rate.
        smoothing: share of the label spread over all classes.
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of cutmix; 0 for none.
        teacher: a network whose decisions the distillation head learns; the variant must be
            distilled. It is not trained and not saved.

    Raises:
        ValueError: the variant or a setting does not exist, a number is outside its range, or a
            teacher is given to a model without a second head.

    Source: Touvron et al., 2021, "Training data-efficient image transformers & distillation
    through attention", arXiv 2012.12877, table 9 and eq. (3).
    """

    model: ImageModel | Unbuilt
    monitor = "val/accuracy"
    mode = "max"
    output_names = ("scores",)

    def __init__(
        self,
        variant: str = "deit_tiny",
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
        super().__init__()
        if lr <= 0:
            raise ValueError(f"lr must be positive, got {lr}")
        rest = {"final_lr": final_lr, "weight_decay": weight_decay, "warmup": warmup}
        rest |= {"lr_batch": lr_batch, "mixup": mixup, "cutmix": cutmix}
        for name, value in rest.items():
            if value < 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be in [0, 1), got {smoothing}")
        if classes is not None and classes < 2:
            raise ValueError(f"classes must be at least 2, got {classes}")
        self.variant, self.settings = variant, dict(settings or {})
        for name in ("classes", "channels", "image_size"):
            if name in self.settings:
                raise ValueError(f"settings: {name} comes from the data, as --data.{name} says it")
        self.check_settings()
        self.weights, self.classes, self.smoothing = weights, classes, smoothing
        self.lr, self.final_lr, self.weight_decay, self.warmup = lr, final_lr, weight_decay, warmup
        self.lr_batch, self.mixup, self.cutmix = lr_batch, mixup, cutmix
        self.model = Unbuilt()
        self._start: str | None = None
        # In a list, so that it is no submodule: neither trained nor saved.
        self._teacher = [] if teacher is None else [teacher.eval().requires_grad_(False)]

    def config(self, **sizes: Any) -> ImageConfig:
        """The configuration of the network."""
        settings = {k: tuple(x) if isinstance(x, list) else x for k, x in self.settings.items()}
        return variant(VARIANTS, self.variant, **settings, **sizes)

    def check_settings(self) -> ImageConfig:
        """Tells an unknown name or setting at once, for images that any patches and blocks fit."""
        usual = variant(VARIANTS, self.variant)
        sides = (self.settings.get(name) for name in ("patch_size", "block"))
        fit = math.prod(x for x in sides if isinstance(x, int) and x > 0)
        return self.config(image_size=tuple(16 * fit * side for side in usual.image_sides))

    def configure_model(self) -> None:
        """Builds the network for the data, unless that is done."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        classes = len(data.class_names)
        if self.classes not in (None, classes):
            raise ValueError(f"classes is {self.classes}, the data have {classes}")
        sizes = {"classes": classes, "channels": data.channels, "image_size": data.image_size}
        if isinstance(self.model, Unbuilt):
            self.build(sizes)
            if self._start is not None:
                super().start_from(self._start)
        elif self.sizes != sizes:
            raise ValueError(f"the network was built for {self.sizes}, the data have {sizes}")
        trainer = self.trainer
        if trainer.world_size > 1 and trainer.strategy.root_device.type == "cuda":
            synchronized(self.network)

    def build(self, sizes: Mapping[str, Any]) -> None:
        """Makes the network.

        Args:
            sizes: classes, channels and image_size of its configuration.

        Raises:
            ValueError: the variant cannot take such images, or has no head for a teacher.
        """
        self.sizes = dict(sizes)
        self.model = self.config(**sizes).build()
        if self._teacher and not getattr(self.model.config, "distilled", False):
            raise ValueError(f"teacher needs a distilled variant, got {self.variant!r}")
        self.mix = None
        if self.mixup > 0 or self.cutmix > 0:
            self.mix = Mixup(
                self.mixup, self.cutmix, label_smoothing=self.smoothing,
                num_classes=sizes["classes"],
            )  # fmt: skip

    def start_from(self, path: str) -> None:
        """Starts from a file of weights once the network is built."""
        if isinstance(self.model, Unbuilt):
            self._start = path
        else:
            super().start_from(path)

    def adapted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights under our names, with positions of our grid."""
        return adapted(state, self.network)

    @property
    def network(self) -> ImageModel:
        """The network.

        Raises:
            ValueError: the data have not said yet how large it is.
        """
        if not isinstance(self.model, ImageModel):
            raise ValueError("the network is built once the data are known")
        return self.model

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the sizes, from which the network is built again, and the classes' names."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        checkpoint |= {"sizes": self.sizes, "class_names": list(data.class_names)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the network as it was, or checks that it is the same.

        Raises:
            ValueError: it is not; the message names the weights that differ.
        """
        if isinstance(self.model, Unbuilt):
            self.build(checkpoint["sizes"])
        else:
            check_fits(self, checkpoint, self.trainer.ckpt_path or "given")

    def scores(self, images: Tensor) -> tuple[Tensor, ...]:
        """What is trained: one set of scores, or one per head where there is a teacher."""
        if self._teacher:
            return self.network.head_scores(images)  # pyright: ignore[reportCallIssue]
        return (self.network(images),)

    def targets(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The images, mixed where asked to, and the share of each class in them.

        Of an odd batch the last image stays as it is.
        """
        classes = self.sizes["classes"]
        plain = F.one_hot(labels, classes).to(images.dtype)
        plain = plain * (1 - self.smoothing) + self.smoothing / classes
        even = len(images) // 2 * 2
        if self.mix is None or even == 0:
            return images, plain
        mixed, targets = self.mix(images[:even].clone(), labels[:even])
        return torch.cat([mixed, images[even:]]), torch.cat([targets.to(plain), plain[even:]])

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Cross entropy on (mixed) images, plus what the layers add."""
        images, targets = self.targets(*batch)
        scores = self.scores(images)
        goals = [targets] * len(scores)
        if self._teacher:
            with torch.no_grad():
                decisions = self._teacher[0].to(images.device)(images).argmax(-1)
            goals[1] = F.one_hot(decisions, self.sizes["classes"]).float()
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
        return self.network(images).softmax(-1)

    def configure_optimizers(self):
        """AdamW with DeiT's schedule."""
        optimizer = torch.optim.AdamW(
            parameter_groups(self.network, self.weight_decay), lr=self.lr * self.rate_scale()
        )
        return warmup_cosine(
            optimizer, self.trainer, warmup=self.warmup, floor=self.final_lr / self.lr
        )

    def rate_scale(self) -> float:
        """By how much the batch raises learning rates."""
        data: ImageData = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        batch = data.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        return batch / self.lr_batch if self.lr_batch else 1.0

    def example_inputs(self, image_size: int | Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Two images of noise.

        Args:
            image_size: rows and columns in pixels, or one number for both; those of the data if
                None.

        Raises:
            ValueError: it is no such size.
        """
        network = self.network
        if image_size is None:
            return network.example_inputs(2)
        sides = [image_size] * 2 if isinstance(image_size, int) else list(image_size)
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            raise ValueError(f"image_size must be one or two numbers above 0, got {image_size!r}")
        return (torch.randn(2, network.config.channels, *sides),)

    @torch.no_grad()
    def figures(self, data: LightningDataModule) -> Iterable[Exhibit]:
        """Predictions on test images, confusion, and what the model has of attention maps."""
        if not isinstance(data, ImageData):
            return
        images, labels = next(iter(data.test_dataloader()))
        images, labels = images[:8].to(self.device), labels[:8]
        pixels, names = data.to_pixels(images), data.class_names
        yield pictures.predictions(pixels, self.network(images).softmax(-1).cpu(), labels, names)
        yield self._confusion(data, names)
        yield from model_pictures.of_model(self.network, images, pixels)

    def _confusion(self, data: ImageData, names) -> Exhibit:
        counts = torch.zeros(len(names), len(names), dtype=torch.long)
        for images, labels in data.test_dataloader():
            guessed = self.network(images.to(self.device)).argmax(-1).cpu()
            counts.index_put_((labels, guessed), torch.tensor(1), accumulate=True)
        return pictures.confusion(counts, names)

    def _measure(self, part: str, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        scores = self.network(images)
        losses(self.model)  # an auxiliary loss of this pass belongs to no training step
        loss, count = F.cross_entropy(scores, labels), len(labels)
        self.log(f"{part}/loss", loss, sync_dist=True, batch_size=count)
        correct = accuracy(scores, labels, "multiclass", num_classes=self.sizes["classes"])
        self.log(f"{part}/accuracy", correct, prog_bar=True, sync_dist=True, batch_size=count)
