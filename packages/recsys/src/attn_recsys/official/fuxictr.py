"""Weights of FuxiCTR's AutoInt.

Source: reczoo/FuxiCTR, model_zoo/AutoInt.
"""

from collections.abc import Mapping

from torch import Tensor

from ..layout import Layout
from .stacked import depth_of, numbered, refuse_unknown, stack_deep, stack_maps, stack_table

MAPS = ("W_q.weight", "W_k.weight", "W_v.weight", "W_res.weight")


def blocks_from_fuxictr(weights: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """State dict of a stack of `InteractingBlock`s from `{prefix}{i}.W_q.weight` and so on.

    Raises:
        ValueError: there is no block, or one is incomplete.

    Example:
        >>> import torch
        >>> theirs = {f"0.W_{name}.weight": torch.randn(8, 6) for name in ("q", "k", "v", "res")}
        >>> blocks_from_fuxictr(theirs)["0.project.weight"].shape
        torch.Size([32, 6])
    """
    depth = depth_of(weights, prefix + "{}.W_q.weight")
    if not depth:
        raise ValueError(f"no weights {prefix}0.W_q.weight; got {sorted(weights)[:20]}")
    state = {}
    for i in range(depth):
        block = f"{prefix}{i}."
        state[f"{i}.project.weight"] = stack_maps(weights, block, MAPS, transpose=False)
        for part in ("weight", "bias"):
            if f"{block}layer_norm.{part}" in weights:
                state[f"{i}.norm.{part}"] = weights[f"{block}layer_norm.{part}"]
    return state


def from_fuxictr(
    weights: Mapping[str, Tensor], layout: Layout, *, dropout: bool = False
) -> dict[str, Tensor]:
    """State dict of `AutoInt` (`autoint_fuxictr`, with their widths) from FuxiCTR's.

    Their field tables become blocks of the shared one; a table of theirs starts at the field's
    first row. `use_wide` is our `linear_term`, `layer_norm` our norm "pre_relu", `batch_norm` our
    `deep_norm`; a sequence with `MaskedAveragePooling` is a multi-valued field, of which the wide
    part takes the sum (`linear_pooling`).

    Args:
        weights: their state dict.
        layout: the fields in the order of their feature map, which the weights do not tell.
        dropout: whether our model has `deep_dropout`.

    Raises:
        ValueError: weights are missing, left over or do not fit the layout.
    """
    refuse_unknown(weights, ("embedding_layer.", "self_attention.", "fc.", "lr_layer.", "dnn.mlp."))
    tables = "embedding_layer.embedding_layer.embedding_layers.{}.weight"
    state = {"embedding.weight": stack_table(weights, tables, layout)}
    if depth_of(weights, "self_attention.{}.W_q.weight"):
        blocks = blocks_from_fuxictr(weights, "self_attention.")
        state |= {f"blocks.{name}": x for name, x in blocks.items()}
    state |= {f"out.{part}": weights[f"fc.{part}"] for part in ("weight", "bias")}
    if f"lr_layer.{tables}".format(layout.names[0]) in weights:
        state["linear.weight"] = stack_table(weights, f"lr_layer.{tables}", layout)
        if "lr_layer.bias" in weights:
            state["out.bias"] = state["out.bias"] + weights["lr_layer.bias"]
    if deep := numbered(weights, "dnn.mlp."):
        *hidden, logit = deep
        state |= {f"deep.out.{part}": x for part, x in logit.items()}
        named = stack_deep(hidden, dropout=dropout)
        state |= {f"deep.hidden.{name}": x for name, x in named.items()}
    return state
