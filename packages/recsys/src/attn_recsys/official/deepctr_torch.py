"""Weights of DeepCTR-Torch's AutoInt.

Source: shenweichen/DeepCTR-Torch, deepctr_torch/models/autoint.py and layers/interaction.py.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..layout import Layout
from .stacked import depth_of, numbered, refuse_unknown, stack_deep, stack_maps, stack_table

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


def from_deepctr(
    weights: Mapping[str, Tensor], layout: Layout, *, dropout: bool = False
) -> dict[str, Tensor]:
    """State dict of `AutoInt` (`autoint_deepctr_torch`, with their widths) from DeepCTR-Torch's.

    Their dense features, of dimension 1, are numerical fields; a `VarLenSparseFeat` with mean
    pooling is a multi-valued field, one that borrows another's table (`embedding_name`) lies on its
    rows in the layout; `dnn_use_bn` is our `deep_norm`. Without attention (`att_layer_num=0`) our
    `block_widths` are empty.

    Args:
        weights: their state dict.
        layout: the fields in the order of their feature columns, except that theirs always has
            the multi-valued fields after the categorical ones; numerical fields may stand anywhere.
        dropout: whether our model has `deep_dropout`.

    Raises:
        ValueError: weights are missing, left over or do not fit the layout.
    """
    refuse_unknown(
        weights,
        ("linear_model.", "embedding_dict.", "int_layers.", "dnn.linears.", "dnn.bn.",
         "dnn_linear.weight", "out.bias"),
    )  # fmt: skip
    dense = [name for name in layout.names if name in layout.numerical]
    linear = stack_table(weights, "linear_model.embedding_dict.{}.weight", layout, missing_ok=dense)
    found = weights.get("linear_model.weight", torch.empty(0, 1))
    if len(found) != len(dense):
        raise ValueError(
            f"the layout has {len(dense)} numerical fields {dense}, linear_model.weight has "
            f"{len(found)} rows"
        )
    for name, weight in zip(dense, found, strict=True):
        linear[layout.firsts[layout.names.index(name)]] = weight
    table = stack_table(weights, "embedding_dict.{}.weight", layout, missing_ok=dense)
    out = weights["dnn_linear.weight"]
    state = {
        "embedding.weight": table,
        "linear.weight": linear,
        "out.bias": torch.as_tensor(weights["out.bias"]).reshape(1),
    }
    if depth_of(weights, "int_layers.{}.W_Query"):
        blocks = blocks_from_deepctr(weights, "int_layers.")
        state |= {f"blocks.{name}": x for name, x in blocks.items()}
    else:  # their output reads the deep part alone
        flat = (layout.fields - len(dense)) * table.shape[1]
        out = torch.cat([out.new_zeros(1, flat), out], 1)
    state["out.weight"] = out
    maps, norms = numbered(weights, "dnn.linears."), numbered(weights, "dnn.bn.")
    layers = [layer for pair in zip(maps, norms, strict=True) for layer in pair] if norms else maps
    named = stack_deep(layers, dropout=dropout)
    return state | {f"deep.hidden.{name}": x for name, x in named.items()}
