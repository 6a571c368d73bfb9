"""One's own images, sorted into one folder per class."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets

from core_attn.training import data_folder

from .augmentation import Augmentation
from .image_data import ImageData


class ImageFolder(ImageData):
    """Images under root/train/<class>/ and root/test/<class>/, optionally root/val/<class>/.

    Args:
        root: the folder that holds `train` and `test`.

    The other arguments are those of `ImageData`; `validation` is used where there is no `val`.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        batch_size: int = 64,
        validation: float = 0.1,
        augmentation: Augmentation = Augmentation.deit(),  # noqa: B008 (frozen)
        num_workers: int = 2,
        seed: int = 0,
    ):
        super().__init__(image_size, batch_size, validation, augmentation, num_workers, seed)
        self.root = root
        self.has_validation = Path(root, "val").is_dir()

    def prepare_data(self) -> None:
        """Checks that the folders are there."""
        for part in ("train", "test"):
            data_folder(Path(self.root, part), "*/*")

    def setup(self, stage: str | None = None) -> None:
        """Opens the three parts and takes the class names from the folders."""
        super().setup(stage)
        self.class_names = self._open("train", lambda image: image).classes

    def load(self, part: str, transform: Callable[[Image.Image], Any]) -> Dataset:
        """Opens a part's folder."""
        part = "val" if part == "validation" else part
        opened, train = self._open(part, transform), self._open("train", transform)
        if opened.classes != train.classes:
            odd = sorted(set(opened.classes) ^ set(train.classes))
            raise ValueError(f"classes of {part} and train under {self.root} differ: {odd}")
        return opened

    def _open(self, part: str, transform: Callable[[Image.Image], Any]) -> datasets.ImageFolder:
        return datasets.ImageFolder(str(data_folder(Path(self.root, part), "*/*")), transform)
