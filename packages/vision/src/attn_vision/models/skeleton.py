"""What every model of the package has: a configuration that builds it and is saved with it."""

from dataclasses import dataclass, fields
from typing import Any, Self, get_type_hints

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class ImageConfig:
    """What goes into a model and what comes out; the base of all configurations.

    Attributes:
        image_size: rows and columns of the training images, or one number for both, in pixels.
        channels: colors of an image.
        classes: scores per image; 0 for none: the model then returns features.
        drop_path: probability of skipping a residual branch in the last block, in training; it
            rises linearly from 0 in the first block of the first stage.

    Raises:
        ValueError: a number is outside its range.
    """

    image_size: int | tuple[int, int] = 224
    channels: int = 3
    classes: int = 1000
    drop_path: float = 0.0

    def __post_init__(self):
        """Takes lists, as JSON and YAML give them, for tuples; refuses what cannot be built."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        if min(self.image_sides) < 1:
            raise ValueError(f"image_size must be at least 1, got {self.image_size}")
        if self.channels < 1:
            raise ValueError(f"channels must be at least 1, got {self.channels}")
        if self.classes < 0:
            raise ValueError(f"classes must be at least 0, got {self.classes}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {self.drop_path}")

    @property
    def image_sides(self) -> tuple[int, int]:
        """Rows and columns of the training images, in pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def build(self) -> "ImageModel":
        """The model of this configuration, untrained."""
        raise NotImplementedError(f"{type(self).__name__} does not say which model it builds")


class ImageModel(nn.Module, PyTorchModelHubMixin):
    """A map from images to class scores that is built from one configuration.

    A subclass declares `config: ItsConfig`; the configuration is saved and loaded with the weights
    (`save_pretrained`, `from_pretrained`), and one of another class is refused.

    Attributes:
        config: what it was built from.
        no_weight_decay: names of parameters, or of their last part, that do not decay though they
            have two or more axes.

    Args:
        config: as declared.

    Raises:
        TypeError: the configuration is of another class.
    """

    config: ImageConfig
    no_weight_decay: frozenset[str] = frozenset()

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        given = cls._hub_mixin_init_parameters["config"]
        declared = given.replace(annotation=get_type_hints(cls)["config"])
        cls._hub_mixin_init_parameters["config"] = declared

    def __init__(self, config: ImageConfig):
        super().__init__()
        declared = self._hub_mixin_init_parameters["config"].annotation
        if type(config) is not declared:
            raise TypeError(
                f"{type(self).__name__} is built from a {declared.__name__}, got a "
                f"{type(config).__name__}; a subclass declares `config: {type(config).__name__}`"
            )
        self.config = config

    @classmethod
    def _from_pretrained(cls, *, strict: bool = True, **options: Any) -> Self:
        return super()._from_pretrained(strict=strict, **options)  # partly loaded is not loaded

    def init_weights(self) -> None:
        """Draws all weights anew; parts with an `init_weights` of their own use that one."""
        init_parts(self)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Class scores; pooled features where there are no classes."""
        raise NotImplementedError

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Arguments of `forward`: images of noise of the configured size."""
        return (torch.randn(batch, self.config.channels, *self.config.image_sides),)


def init_parts(module: nn.Module) -> None:
    """Linear weights from a normal distribution of width 0.02 cut at 2, their biases 0.

    A part that has a method `init_weights` is left to it; all others keep torch's own draw.
    """
    for part in module.children():
        own = getattr(part, "init_weights", None)
        if own is not None:
            own()
            continue
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        init_parts(part)
