"""How often the neurons of a SpikeGPT fire, and what that saves."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from core_attn import record

from .models import Decoder
from .models.spikegpt import SpikeGPTConfig


class SpikeRates(NamedTuple):
    """Rates of firing, and operations per text.

    Attributes:
        rates: spikes per token and channel, by layer.
        accumulates: additions in the maps that binary features or spike counts enter: one for each
            spike and output.
        multiplies: multiplications of the same maps on dense features.
    """

    rates: dict[str, float]
    accumulates: int
    multiplies: int


@torch.no_grad()
def spike_rates(model: Decoder, ids: Tensor) -> SpikeRates:
    """Measures the rates on texts (batch, tokens).

    Energy is estimated as in the paper: a spike costs an addition for each output of the maps of
    the block that it enters, where a dense feature costs a multiplication.

    Raises:
        ValueError: the model has no neurons.
    """
    if not isinstance(model.config, SpikeGPTConfig):
        raise ValueError(f"{type(model.config).__name__} describes no model with neurons")
    with record(model, "spikes") as seen:
        model(ids)
        trains = dict(seen)
    outputs = []
    for block in model.blocks:
        for part in (block.mixer, block.feed_forward):
            entering = [
                m.out_features
                for m in part.modules()  # type: ignore[union-attr]
                if isinstance(m, nn.Linear) and m.in_features == model.config.dim
            ]
            outputs.append(sum(entering))
    accumulates, multiplies = 0, 0
    for train, width in zip(trains.values(), outputs, strict=False):
        accumulates += int(train.sum()) * width
        multiplies += train.numel() * width
    return SpikeRates({n: t.mean().item() for n, t in trains.items()}, accumulates, multiplies)
