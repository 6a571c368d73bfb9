"""From stored images to normalised tensors, with or without augmentation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from timm.data.auto_augment import AugmentOp, RandAugment, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import v2

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image; the defaults change nothing.

    Attributes:
        crop: "none"; "pad" (random shift by up to an eighth of the side, as for small images);
            "resized" (random part of the image, between 8 % and all of its area).
        flip: probability of a left-right flip.
        rand_augment: timm's name of a RandAugment policy, as "rand-m9-mstd0.5-inc1"; "" for none.
        color_jitter: strength of random brightness, contrast and saturation.
        erasing: probability of replacing a random rectangle by noise.
        repeats: how often an image appears in an epoch, each time changed anew; an epoch has as
            many images as ever, so that it holds a part of the set.

    Source: `deit()` is the recipe of Touvron et al., 2021, "Training data-efficient image
    transformers", arXiv 2012.12877, table 9.

    Example:
        >>> Augmentation.deit().rand_augment
        'rand-m9-mstd0.5-inc1'
    """

    crop: str = "none"
    flip: float = 0.0
    rand_augment: str = ""
    color_jitter: float = 0.0
    erasing: float = 0.0
    repeats: int = 1

    def __post_init__(self):
        """Refuses values outside their range."""
        if self.crop not in ("none", "pad", "resized"):
            raise ValueError(f"crop must be 'none', 'pad' or 'resized', got {self.crop!r}")
        for name in ("flip", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")
        if self.color_jitter < 0:
            raise ValueError(f"color_jitter must be at least 0, got {self.color_jitter}")
        if self.rand_augment:
            try:
                rand_augment_transform(self.rand_augment, {})
            except (AssertionError, ValueError) as error:
                raise ValueError(
                    "rand_augment must be a policy of timm, as 'rand-m9-mstd0.5-inc1', got "
                    f"{self.rand_augment!r}"
                ) from error

    @classmethod
    def deit(cls) -> "Augmentation":
        """DeiT's recipe for large images; mixup and cutmix belong to the task."""
        return cls(
            "resized", 0.5, "rand-m9-mstd0.5-inc1", color_jitter=0.4, erasing=0.25, repeats=3
        )


def training_transform(
    augmentation: Augmentation, size: int, mean: Sequence[float], std: Sequence[float]
) -> Transform:
    """Resizes to `size` pixels, changes at random and normalizes.

    Args:
        augmentation: the changes.
        size: side of the result.
        mean: of each channel, on the scale [0, 1].
        std: likewise.
    """
    a = augmentation
    steps: list = {
        "none": [v2.Resize((size, size))],
        "pad": [v2.Resize((size, size)), v2.RandomCrop(size, padding=max(size // 8, 1))],
        "resized": [v2.RandomResizedCrop(size, interpolation=v2.InterpolationMode.BICUBIC)],
    }[a.crop]
    if a.flip:
        steps.append(v2.RandomHorizontalFlip(a.flip))
    if a.rand_augment:  # brings its own changes of color
        fill = tuple(round(255 * x) for x in mean)
        options = {"translate_const": int(size * 0.45), "img_mean": fill}
        steps.append(_randomly(a.rand_augment, options))
    elif a.color_jitter:
        steps.append(v2.ColorJitter(*[a.color_jitter] * 3))
    steps += _to_tensor(mean, std)
    if a.erasing:
        steps.append(RandomErasing(a.erasing, mode="pixel", device="cpu"))
    return v2.Compose(steps)


def evaluation_transform(size: int, mean: Sequence[float], std: Sequence[float]) -> Transform:
    """Cuts out the center, scaled so that a large image loses an eighth of its short side."""
    return v2.Compose([v2.Lambda(lambda image: _center(image, size)), *_to_tensor(mean, std)])


def _center(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    short = size if max(image.size) <= size else round(size * 8 / 7)
    scale = short / min(image.size)
    sides = (round(image.width * scale), round(image.height * scale))
    left, top = ((side - size) // 2 for side in sides)
    resized = image.resize(sides, Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def _randomly(policy: str, options: dict) -> RandAugment:
    made = rand_augment_transform(policy, options)
    return RandAugment(list(map(_with_a_bit, made.ops)), made.num_layers)


class _Posterize(AugmentOp):
    """timm's, but it leaves one bit a channel, where Pillow refuses to leave none."""

    def __init__(self, op: AugmentOp):
        super().__init__(op.name, op.prob, op.magnitude, op.hparams)
        self.level_fn = _bits


def _bits(level: float, hparams: dict) -> tuple[int]:
    return (max(4 - int(level / 10 * 4), 1),)


def _with_a_bit(op: AugmentOp) -> AugmentOp:
    return _Posterize(op) if op.name == "PosterizeIncreasing" else op


def _to_tensor(mean: Sequence[float], std: Sequence[float]) -> list:
    to_float = v2.ToDtype(torch.float32, scale=True)
    return [v2.ToImage(), to_float, v2.Normalize(list(mean), list(std))]
