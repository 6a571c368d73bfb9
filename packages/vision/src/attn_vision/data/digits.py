"""The 1,797 handwritten digits that come with scikit-learn: data without a download."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from .augmentation import Augmentation
from .image_data import ImageArrays, ImageData


class Digits(ImageData):
    """Grey 8x8 digits: 1,437 to train and validate on, 360 (20 % of each class) to test on.

    Source: Alpaydin and Kaynak, 1998, "Optical Recognition of Handwritten Digits", UCI, CC BY 4.0.

    Example:
        >>> data = Digits()
        >>> data.setup()
        >>> data.test_set[0][0].shape, len(data.test_set)
        (torch.Size([1, 8, 8]), 360)
    """

    channels = 1
    mean = (0.3053,)
    std = (0.3762,)
    class_names = tuple("0123456789")
    default_augmentation = Augmentation(crop="pad")

    def __init__(
        self,
        image_size: int = 8,
        batch_size: int = 64,
        validation: float = 0.1,
        augmentation: Augmentation | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(image_size, batch_size, validation, augmentation, num_workers, seed)

    def load(self, part: str, transform: Callable[[Image.Image], Any]) -> Dataset:
        """Reads the digits out of scikit-learn; the test images are the same for every seed."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        pixels, labels = load_digits(return_X_y=True)
        images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
        rows = np.arange(len(images))
        train, test = train_test_split(rows, test_size=0.2, stratify=labels, random_state=0)
        chosen = test if part == "test" else train
        return ImageArrays(images[chosen], labels[chosen], transform)
