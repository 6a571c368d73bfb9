"""Weights of DeepCTR-Torch's AutoInt.

Source: shenweichen/DeepCTR-Torch, deepctr_torch/models/autoint.py and layers/interaction.py.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..layout import Layout
from .stacked import depth_of, stack_maps, stack_table

MAPS = ("W_Query", "W_key", "W_Value", "W_Res")


def blocks_from_deepctr(weights: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """State dict of a stack of `InteractingBlock`s from `{prefix}{i}.W_Query` and so on.

    Raises:
        ValueError: there is no block, or one is incomplete.

    Example:
        >>> import torch
        >>> theirs = {f"0.{name}": torch.randn(8, 8) for name in MAPS}
        >>> blocks_from_deepctr(theirs)["0.project.weight"].shape
        torch.Size([32, 8])
    """
    depth = depth_of(weights, prefix + "{}.W_Query")
    if not depth:
        raise ValueError(f"no weights {prefix}0.W_Query; got {sorted(weights)[:20]}")
    return {
        f"{i}.project.weight": stack_maps(weights, f"{prefix}{i}.", MAPS, transpose=True)
        for i in range(depth)
    }


def from_deepctr(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """State dict of `AutoInt` (preset "deepctr_torch", with their widths) from DeepCTR-Torch's.

    Their dense features are the layout's numerical fields, in its order.

    Raises:
        ValueError: weights are missing or do not fit the layout.
    """
    dense = layout.numerical
    linear = stack_table(weights, "linear_model.embedding_dict.{}.weight", layout, missing_ok=dense)
    for name, weight in zip(dense, weights.get("linear_model.weight", ()), strict=True):
        linear[layout.firsts[layout.names.index(name)]] = weight
    state = {
        "embedding.weight": stack_table(
            weights, "embedding_dict.{}.weight", layout, missing_ok=dense
        ),
        "linear.weight": linear,
        "out.weight": weights["dnn_linear.weight"],
        "out.bias": torch.as_tensor(weights["out.bias"]).reshape(1),
    }
    blocks = blocks_from_deepctr(weights, "int_layers.")
    state |= {f"blocks.{name}": x for name, x in blocks.items()}
    for name, x in weights.items():
        if name.startswith("dnn.linears."):
            _, _, number, part = name.split(".")
            state[f"deep.hidden.{2 * int(number)}.{part}"] = x
    return state
