"""Weights of FuxiCTR's AutoInt.

Source: reczoo/FuxiCTR, model_zoo/AutoInt.
"""

from collections.abc import Mapping

from torch import Tensor

from ..layout import Layout
from .stacked import depth_of, stack_maps, stack_table

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


def from_fuxictr(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """State dict of `AutoInt` (preset "fuxictr", with their widths) from FuxiCTR's.

    Their field tables become blocks of the shared one; a table of theirs starts at the field's
    first row.

    Raises:
        ValueError: weights are missing or do not fit the layout.
    """
    tables = "embedding_layer.embedding_layer.embedding_layers.{}.weight"
    state = {"embedding.weight": stack_table(weights, tables, layout)}
    blocks = blocks_from_fuxictr(weights, "self_attention.")
    state |= {f"blocks.{name}": x for name, x in blocks.items()}
    state |= {f"out.{part}": weights[f"fc.{part}"] for part in ("weight", "bias")}
    if f"lr_layer.{tables}".format(layout.names[0]) in weights:
        state["linear.weight"] = stack_table(weights, f"lr_layer.{tables}", layout)
        if "lr_layer.bias" in weights:
            state["out.bias"] = state["out.bias"] + weights["lr_layer.bias"]
    return state | _deep_part(weights)


def _deep_part(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their `dnn.mlp.{n}` maps, of which the last gives the logit."""
    numbers = sorted({int(name.split(".")[2]) for name in weights if name.startswith("dnn.mlp.")})
    state = {}
    for n in numbers:
        ours = "deep.out" if n == numbers[-1] else f"deep.hidden.{n}"
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = weights[f"dnn.mlp.{n}.{part}"]
    return state
