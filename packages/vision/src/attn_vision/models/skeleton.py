"""What every model of the package has: a configuration that builds it and is saved with it."""

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

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
        TypeError: a value is of another type than its field says.
        ValueError: a number is outside its range.
    """

    # Ranges of numbers, or of all entries of a tuple, by the name of the field in any subclass.
    counts: ClassVar = frozenset({
        "image_size", "channels", "patch_size", "dim", "dims", "depths", "heads",
        "head_dim", "stem_dim", "widths", "strides", "block", "shrinks", "dilations",
        "pretrain_size",
    })  # fmt: skip
    counts_or_zero: ClassVar = frozenset({
        "classes", "depth", "halo", "registers", "group_width", "final_dim", "norm_eps",
        "balance_weight",
    })  # fmt: skip
    ratios: ClassVar = frozenset({"mlp_ratio", "mlp_ratios", "value_ratio", "qk_ratio"})
    probabilities: ClassVar = frozenset(
        {"drop_path", "dropout", "attention_dropout", "head_dropout", "label_dropout"}
    )

    image_size: int | tuple[int, int] = 224
    channels: int = 3
    classes: int = 1000
    drop_path: float = 0.0

    def __post_init__(self):
        """Takes lists, as JSON and YAML give them, for tuples; refuses what cannot be built."""
        hints = get_type_hints(type(self))
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, name, value)
            if not _fits(value, hints[name]):
                raise TypeError(f"{name} must be {_in_words(hints[name])}, got {value!r}")
            numbers = () if value is None else value if isinstance(value, tuple) else (value,)
            if name in self.counts and any(x < 1 for x in numbers):
                raise ValueError(f"{name} must be at least 1, got {value}")
            if name in self.counts_or_zero and any(x < 0 for x in numbers):
                raise ValueError(f"{name} must be at least 0, got {value}")
            if name in self.ratios and any(x <= 0 for x in numbers):
                raise ValueError(f"{name} must be above 0, got {value}")
            if name in self.probabilities and any(not 0 <= x < 1 for x in numbers):
                raise ValueError(f"{name} must be in [0, 1), got {value}")

    @property
    def image_sides(self) -> tuple[int, int]:
        """Rows and columns of the training images, in pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def check_routed(self, heads: int, shared: int, routed: int) -> None:
        """Refuses numbers of gated heads that do not fit each other.

        Raises:
            ValueError: there are fewer heads, or none acts beside the shared ones.
        """
        if not 0 <= shared <= heads:
            raise ValueError(f"shared heads must be in [0, {heads}], got {shared}")
        if not 0 <= routed <= heads - shared:
            raise ValueError(f"routed={routed} but only {heads - shared} routed heads exist")
        if routed == 0 and shared < heads:
            raise ValueError(f"routed=0 needs all {heads} heads to be shared, got shared={shared}")

    def build(self) -> "ImageModel":
        """The model of this configuration, untrained."""
        raise NotImplementedError(f"{type(self).__name__} does not say which model it builds")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; numbers must be finite."""
    if hint in (bool, NoneType, str):
        return isinstance(value, hint)
    if hint in (int, float):
        kind = Integral if hint is int else Real
        return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if get_origin(hint) is Literal:
        return isinstance(value, str)  # which, its owner checks
    parts = get_args(hint)
    if get_origin(hint) is not tuple:
        return any(_fits(value, part) for part in parts)
    if not isinstance(value, tuple):
        return False
    if parts[-1] is Ellipsis:
        return all(_fits(x, parts[0]) for x in value)
    return len(value) == len(parts) and all(map(_fits, value, parts))


def _in_words(hint: Any) -> str:
    """A type as a user may read it."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    if hint in words:
        return words[hint]
    if hint is NoneType:
        return "none"
    parts = get_args(hint)
    if get_origin(hint) is not tuple:
        return " or ".join(map(_in_words, parts))
    if parts[-1] is Ellipsis:
        return f"a list, each {_in_words(parts[0])}"
    return f"a list of {len(parts)}, each {_in_words(parts[0])}"


class ImageModel(nn.Module, PyTorchModelHubMixin):
    """A map from images to class scores that is built from one configuration.

    A subclass declares `config: ItsConfig`; the configuration is saved and loaded with the weights
    (`save_pretrained`, `from_pretrained`), and one of another class is refused. A subclass with
    further arguments, which would be lost, is not saved.

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

    def _save_pretrained(self, save_directory: Path) -> None:
        own = self._hub_mixin_init_parameters.keys() - {"self", "config"}
        if own:
            raise TypeError(
                f"{type(self).__name__} cannot be saved: its configuration does not keep "
                f"{', '.join(sorted(own))}; make them fields of a configuration of its own"
            )
        super()._save_pretrained(save_directory)

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
