"""Recorded runs: models with the frozen weights of a file."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from .model import RandomFeatureAttention, RFAConfig


def from_recorded(
    config: Mapping[str, Any], weight: Float[Tensor, "heads width width"]
) -> RandomFeatureAttention:
    """The model of a recorded configuration ("d", "heads", "biased") with its frozen weights.

    Raises:
        ValueError: the weights do not fit the configuration.

    Example:
        >>> import torch
        >>> from_recorded({"d": 3, "heads": 2, "biased": False}, torch.randn(2, 4, 4)).parameters
        8
    """
    model = RandomFeatureAttention(RFAConfig(config["d"], config["heads"], config["biased"]))
    if weight.shape != model.weight.shape:
        raise ValueError(f"W has shape {tuple(weight.shape)}, expected {tuple(model.weight.shape)}")
    model.weight = weight
    return model
