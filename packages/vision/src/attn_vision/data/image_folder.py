"""One's own images, sorted into one folder per class."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from core_attn.training import data_folder

from .augmentation import Augmentation
from .image_data import ImageData
from .reading import picture_files, read_image, readable


class ImageFolder(ImageData):
    """Images under root/train/<class>/ and root/test/<class>/, optionally root/val/<class>/.

    Files that are no whole pictures are named, counted and left out; hidden ones are no pictures.
    Pictures are upright and 8-bit, see `attn_vision.data.reading`.

    Args:
        root: the folder that holds `train` and `test`.

    The other arguments are those of `ImageData`; `validation` is used where there is no `val`.
    """

    default_augmentation = Augmentation.deit()

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        batch_size: int = 64,
        validation: float = 0.1,
        augmentation: Augmentation | None = None,
        num_workers: int = 2,
        seed: int = 0,
    ):
        super().__init__(image_size, batch_size, validation, augmentation, num_workers, seed)
        self.root = root
        self.has_validation = Path(root, "val").is_dir()
        self._files: dict[str, list[tuple[Path, str]]] = {}

    def prepare_data(self) -> None:
        """Checks that the folders are there."""
        for part in ("train", "test"):
            data_folder(Path(self.root, part), "*/*")

    def setup(self, stage: str | None = None) -> None:
        """Opens the three parts and takes the class names from the folders."""
        names = list(dict.fromkeys(name for _, name in self._listed("train")))
        if len(names) < 2:
            raise ValueError(
                f"{Path(self.root, 'train')} holds one class, {names[0]!r}; there must "
                "be at least 2 folders"
            )
        self.class_names = tuple(names)
        super().setup(stage)

    def load(self, part: str, transform: Callable[[Image.Image], Any]) -> Dataset:
        """Opens a part's folder."""
        part = "val" if part == "validation" else part
        files = self._listed(part)
        strange = sorted({name for _, name in files} - set(self.class_names))
        if strange:
            raise ValueError(f"classes of {part} and train under {self.root} differ: {strange}")
        labels = {name: i for i, name in enumerate(self.class_names)}
        return ImageFiles(
            [path for path, _ in files], [labels[name] for _, name in files], transform,
            self.channels,
        )  # fmt: skip

    def _listed(self, part: str) -> list[tuple[Path, str]]:
        """The readable files of a part with the names of their folders."""
        if part not in self._files:
            folder = data_folder(Path(self.root, part), "*/*")
            paths = readable([p for p in picture_files(folder) if p.parent != folder], str(folder))
            listed = [(path, path.relative_to(folder).parts[0]) for path in paths]
            classes = {name for _, name in listed}
            for child in sorted(folder.iterdir()):
                named = child.is_dir() and not child.name.startswith(".")
                if part == "train" and named and child.name not in classes:
                    raise ValueError(f"class folder {child} holds no picture; fill or remove it")
            self._files[part] = listed
        return self._files[part]


class ImageFiles(Dataset):
    """Picture files with their labels.

    Args:
        paths: the files.
        labels: one per file.
        transform: from a picture to what the loader stacks.
        channels: 1 for grey, 3 for color.
    """

    def __init__(
        self, paths: list[Path], labels: list[int], transform: Callable[[Image.Image], Any],
        channels: int,
    ):  # fmt: skip
        self.paths, self.labels = paths, labels
        self.transform, self.channels = transform, channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(read_image(self.paths[index], self.channels)), self.labels[index]
