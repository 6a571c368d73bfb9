"""Potentials with random weights, for tests."""

from typing import Any

import torch

from .models import create
from .potential import Potential


def untrained(
    numbers: tuple[int, ...] = (1, 6, 8), seed: int = 0, scale: float = 0.5, **changes: Any
) -> Potential:
    """A small potential with random weights; the process's random state stays as it was.

    Args:
        numbers: atomic numbers it knows.
        seed: of the weights.
        scale: in eV.
        changes: settings that differ from `escaip_tiny`'s with a smooth bond order.

    Example:
        >>> untrained().symbols
        ['H', 'C', 'O']
    """
    settings = {
        "dim": 32, "heads": 2, "distance_size": 24, "distance_dim": 24, "smooth_order": True,
    } | changes  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = create("escaip_tiny", **settings)
        with torch.no_grad():  # embeddings start at nearly nothing: tell the elements apart
            for name, p in network.named_parameters():
                if "_atom" in name:
                    p.normal_(std=0.5)
    references = torch.zeros(network.config.elements)
    references[list(numbers)] = -torch.arange(1.0, len(numbers) + 1)
    return Potential(network.eval(), references, scale, list(numbers))
