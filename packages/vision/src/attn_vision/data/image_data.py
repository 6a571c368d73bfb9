"""What the image data sets have in common."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from core_attn.training import loader

from .augmentation import Augmentation, Transform, evaluation_transform, training_transform


class ImageData(LightningDataModule):
    """Labelled images in three parts: for training, validation and test.

    Subclasses set the class attributes and implement `load`.

    Args:
        image_size: side to which images are brought, in pixels.
        batch_size: images per step and process.
        validation: share of the training images held out, where the data set has no part for it.
        augmentation: random changes of training images, those that are named and no other; the
            data set's own by default.
        num_workers: processes that load; 0 loads in the main one.
        seed: of the hold-out and of the order.

    Attributes:
        channels: 1 for grey images, 3 for colour.
        mean: of each channel over the training images, on the scale [0, 1].
        std: likewise.
        class_names: what the labels mean.
        has_validation: whether the data set has a part of its own for validation.
        default_augmentation: what happens to training images where nothing is said.
    """

    channels: int = 3
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    class_names: Sequence[str] = ()
    has_validation: bool = False
    default_augmentation: Augmentation = Augmentation()

    def __init__(
        self,
        image_size: int,
        batch_size: int,
        validation: float,
        augmentation: Augmentation | None,
        num_workers: int,
        seed: int,
    ):
        super().__init__()
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        if num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, got {num_workers}")
        if not 0 < validation < 1:
            raise ValueError(f"validation must be in (0, 1), got {validation}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.image_size, self.batch_size, self.validation = image_size, batch_size, validation
        self.augmentation = self.default_augmentation if augmentation is None else augmentation
        self.num_workers, self.seed = num_workers, seed

    def load(self, part: str, transform: Callable[[Image.Image], Any]) -> Dataset:
        """The images of "train", "test" or, where the data set has it, "validation".

        Raises:
            FileNotFoundError: the files are not there.
        """
        raise NotImplementedError

    def held_out(self, total: int) -> tuple[list[int], list[int]]:
        """Splits `total` training images into those to train on and those to validate on."""
        order = torch.randperm(total, generator=torch.Generator().manual_seed(self.seed)).tolist()
        kept = round(total * self.validation)
        if not 0 < kept < total:
            raise ValueError(f"validation {self.validation} of {total} images leaves a part empty")
        return sorted(order[kept:]), sorted(order[:kept])

    def training_transform(self) -> Transform:
        """What is done to a training picture."""
        return training_transform(self.augmentation, self.image_size, self.mean, self.std)

    def evaluation_transform(self) -> Transform:
        """What is done to any other picture."""
        return evaluation_transform(self.image_size, self.mean, self.std)

    def setup(self, stage: str | None = None) -> None:
        """Opens the three parts."""
        plain = self.evaluation_transform()
        train = self.load("train", self.training_transform())
        validation = self.load("validation" if self.has_validation else "train", plain)
        if not self.has_validation:
            to_train, to_validate = self.held_out(len(train))  # type: ignore[arg-type]
            train, validation = Subset(train, to_train), Subset(validation, to_validate)
        self.train_set = train
        self.validation_set, self.test_set = validation, self.load("test", plain)

    def train_dataloader(self) -> DataLoader:
        """Augmented training images in random order; the last, smaller batch is left out."""
        return self._batches(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Validation images as they are."""
        return self._batches(self.validation_set, shuffle=False)

    def test_dataloader(self) -> DataLoader:
        """Test images as they are."""
        return self._batches(self.test_set, shuffle=False)

    def predict_dataloader(self) -> DataLoader:
        """Test images as they are."""
        return self.test_dataloader()

    def to_pixels(self, images: Tensor) -> Tensor:
        """Undoes the normalisation: values in [0, 1], for pictures."""
        mean, std = (torch.tensor(x)[:, None, None] for x in (self.mean, self.std))
        return (images.cpu() * std + mean).clamp(0, 1)

    def _batches(self, dataset: Dataset, *, shuffle: bool) -> DataLoader:
        return loader(
            dataset,
            self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            drop_last=shuffle,
            repeats=self.augmentation.repeats if shuffle else 1,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )


class ImageArrays(Dataset):
    """Images held in memory, with their labels.

    Args:
        images: (images, height, width) or (images, height, width, 3), uint8.
        labels: (images,), integers.
        transform: from a picture to what the loader stacks.

    Example:
        >>> import numpy as np
        >>> images, labels = np.zeros((4, 8, 8), np.uint8), np.arange(4)
        >>> data = ImageArrays(images, labels, lambda image: image.size)
        >>> data[3]
        ((8, 8), 3)
    """

    def __init__(self, images: Any, labels: Any, transform: Callable[[Image.Image], Any]):
        if len(images) != len(labels):
            raise ValueError(f"images are {len(images)}, labels {len(labels)}; they must agree")
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])
