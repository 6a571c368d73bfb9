"""Names of weights, from one layout to another."""

import re
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

Pairs = Iterable[tuple[str, str]]


class Config(Protocol):
    """What builds a network."""

    def build(self) -> nn.Module:
        """The network."""
        ...


def rename(name: str, pairs: Pairs) -> str:
    """The name with its beginning replaced by the first pair that fits.

    Args:
        name: of a weight.
        pairs: beginnings and what takes their place; <n> stands for a number, kept.

    Example:
        >>> rename("layers.3.conv.bias", [("layers.<n>.conv.", "blocks.<n>.c.")])
        'blocks.3.c.bias'
    """
    for old, new in pairs:
        pattern = re.escape(old).replace("<n>", r"(\d+)")
        if found := re.match(pattern, name):
            for number in found.groups():
                new = new.replace("<n>", number, 1)
            return new + name[found.end() :]
    return name


def check_complete(state: Mapping[str, Tensor], config: Config) -> None:
    """Requires the weights that the configuration's network has, in name and shape.

    Raises:
        ValueError: a key is unknown or missing, or of another shape; the message names them.
    """
    with torch.device("meta"):
        want = config.build().state_dict()
    missing, unknown = sorted(want.keys() - state.keys()), sorted(state.keys() - want.keys())
    if missing or unknown:
        raise ValueError(f"not this configuration's weights: missing {missing}, unknown {unknown}")
    for name, value in state.items():
        if value.shape != want[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, "
                f"the configuration {tuple(want[name].shape)}"
            )
