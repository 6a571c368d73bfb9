"""Recorded networks: from a file's patterns and examples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from .model import Network


def from_recorded(
    config: Mapping[str, Any],
    patterns: Float[np.ndarray, "spins patterns"],
    examples: Float[np.ndarray, "examples spins patterns"],
) -> Network:
    """The network of a recorded configuration ("mode": store, sup or unsup; "quality").

    Raises:
        ValueError: the mode is unknown.

    Example:
        >>> xi = np.ones((4, 2))
        >>> from_recorded({"mode": "store", "quality": 1.0}, xi, xi[None]).spins
        4
    """
    patterns = np.asarray(patterns, dtype=np.float64)[:, None]
    shown = np.moveaxis(np.asarray(examples, dtype=np.float64), 0, -1)[:, None]
    if config["mode"] == "store":
        return Network.storing(patterns)
    if config["mode"] == "sup":
        return Network.supervised(shown, config["quality"])
    if config["mode"] == "unsup":
        return Network.unsupervised(shown, config["quality"])
    raise ValueError(f"mode must be store, sup or unsup, got {config['mode']!r}")
