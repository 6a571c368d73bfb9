"""What the converters share: renaming constructor arguments, and refusing foreign weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..models.skeleton import ImageConfig


def renamed(
    config: Mapping[str, Any],
    names: Mapping[str, str],
    only: Mapping[str, tuple] = {},
) -> dict[str, Any]:
    """Our fields from the arguments of an official constructor.

    Args:
        config: the arguments.
        names: official name -> ours.
        only: arguments without a counterpart, with the values for which none is needed.

    Raises:
        ValueError: an argument is unknown, or has a value that has no counterpart.

    Example:
        >>> renamed({"embed_dim": 8, "drop": 0}, {"embed_dim": "dim"}, {"drop": (0,)})
        {'dim': 8}
    """
    unknown = sorted(config.keys() - names.keys() - only.keys())
    if unknown:
        raise ValueError(f"no counterpart for {unknown}; known: {', '.join(names)}")
    for name, allowed in only.items():
        if name in config and config[name] not in allowed:
            raise ValueError(f"no counterpart for {name}={config[name]!r}; only {allowed}")
    return {ours: config[name] for name, ours in names.items() if name in config}


def fitting(params: Mapping[str, Tensor], config: ImageConfig, system: str) -> dict[str, Tensor]:
    """`params` once it is sure that they are exactly the weights of `config`'s model.

    Args:
        params: in our names.
        config: builds the model.
        system: what the weights should be of, for the message.

    Raises:
        ValueError: names or shapes differ; the first ones are named.
    """
    with torch.device("meta"):
        want = {name: tuple(x.shape) for name, x in config.build().state_dict().items()}
    have = {name: tuple(x.shape) for name, x in params.items()}
    faults = {
        "missing": [name for name in want if name not in have],
        "unknown": [name for name in have if name not in want],
        "of another shape": [
            f"{name} {have[name]} instead of {shape}"
            for name, shape in want.items()
            if have.get(name, shape) != shape
        ],
    }
    said = "; ".join(f"{kind}: {', '.join(names[:3])}" for kind, names in faults.items() if names)
    if said:
        raise ValueError(f"not the weights of this {system}: {said}")
    return dict(params)
