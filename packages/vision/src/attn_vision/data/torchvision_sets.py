"""Data sets that torchvision reads, and downloads on request."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets

from core_attn.training import data_folder

from .augmentation import Augmentation
from .image_data import ImageArrays, ImageData


class TorchvisionData(ImageData):
    """A data set of torchvision with a training and a test part.

    Args:
        root: folder with the files, in torchvision's layout.
        download: fetch them where they are missing.

    The other arguments are those of `ImageData`.
    """

    dataset: type
    default_augmentation = Augmentation(crop="pad", flip=0.5)

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        image_size: int = 32,
        batch_size: int = 128,
        validation: float = 0.1,
        augmentation: Augmentation | None = None,
        num_workers: int = 2,
        seed: int = 0,
    ):
        super().__init__(image_size, batch_size, validation, augmentation, num_workers, seed)
        self.root, self.download = root, download

    def prepare_data(self) -> None:
        """Downloads once, before the processes start, where asked to."""
        if self.download:
            for train in (True, False):
                self.dataset(self.root, train=train, download=True)
        else:
            data_folder(self.root)

    def load(self, part: str, transform: Callable[[Image.Image], Any]) -> Dataset:
        """Opens the training or the test part."""
        name = self.dataset.__name__
        try:
            return self.dataset(self.root, train=part != "test", transform=transform)
        except RuntimeError as error:  # torchvision's way to say that files are missing
            raise FileNotFoundError(
                f"root {self.root!r} does not hold {name}; get it with --data.download true"
            ) from error


class CIFAR10(TorchvisionData):
    """60,000 colour photographs of 32x32 pixels in 10 classes.

    Source: Krizhevsky, 2009, "Learning Multiple Layers of Features from Tiny Images".
    """

    dataset = datasets.CIFAR10
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    class_names = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )


class CIFAR100(TorchvisionData):
    """60,000 colour photographs of 32x32 pixels in 100 classes.

    Source: Krizhevsky, 2009, "Learning Multiple Layers of Features from Tiny Images".
    """

    dataset = datasets.CIFAR100
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    class_names = tuple(map(str, range(100)))


class FashionMNIST(TorchvisionData):
    """70,000 grey pictures of clothing, 28x28 pixels, in 10 classes.

    Source: Xiao, Rasul and Vollgraf, 2017, "Fashion-MNIST", arXiv 1708.07747.
    """

    dataset = datasets.FashionMNIST
    channels = 1
    mean, std = (0.2861,), (0.3530,)
    class_names = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )

    def load(self, part: str, transform: Callable[[Image.Image], Any]) -> Dataset:
        """Opens torchvision's folder, or the four original .gz files lying in `root`."""
        prefix = Path(self.root, "t10k" if part == "test" else "train")
        files = [Path(f"{prefix}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")]
        if not all(file.is_file() for file in files):
            return super().load(part, transform)
        images, labels = map(_read_idx, files)
        return ImageArrays(images, labels, transform)


def _read_idx(path: Path) -> np.ndarray:
    """An array of bytes in IDX format: two zeros, type 8, the number of axes, the axes, the data.

    Raises:
        ValueError: the file is something else or cut short.
    """
    raw = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4) if raw[:3] == b"\0\0\x08" else ()
    start = 4 + 4 * len(shape)
    if len(shape) == 0 or len(raw) != start + np.prod(shape):
        raise ValueError(f"{path} is not a whole IDX file of bytes")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
