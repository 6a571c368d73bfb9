"""The experiments' and the library's Gaussian adaptive attention: weights as ours, and back."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from core_attn import GaussianAdaptiveAttention

from ..models.gaam import GaamConfig
from .renaming import check_complete, rename

_PAIRS = (
    ("gqa.q_proj.", "attn.q."),
    ("gqa.k_proj.", "attn.k."),
    ("gqa.v_proj.", "attn.v."),
    ("gqa.out_proj.", "attn.proj."),
    ("gqa.norm.", "attn.norm."),
    ("embed_transform.", "embed."),
    ("fc.", "head."),
)
_PARAMETERS = {"mean_offset": "offset", "c": "spread"}


def config_from(official: Mapping[str, Any]) -> GaamConfig:
    """Our configuration of what an experiment's model was built with."""
    embed = official.get("embed")
    extra = {}
    if embed:
        extra = {
            "embed": embed, "query_heads": official["query_heads"],
            "kv_heads": official["kv_heads"],
        }  # fmt: skip
    return GaamConfig(
        layers=official["layers"], dim=official["features"], classes=official["classes"],
        mechanism="gq_gaam" if embed else "gaam", heads=official["heads"],
        grid=tuple(official["grid"]), conv_hidden=official["conv_hidden"], **extra,
    )  # fmt: skip


def from_official(state: Mapping[str, Tensor], config: GaamConfig) -> dict[str, Tensor]:
    """Our state dict of an experiment's, whether its heads are called "gcts" or "daams".

    Raises:
        ValueError: a key is unknown or missing, or of another shape.
    """
    ours = renamed(state)
    check_complete(ours, config)
    return ours


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An experiment's weights under our names, whether or not they are complete."""
    ours, heads = {}, {}
    for key, value in state.items():
        if found := re.fullmatch(r"daam\.(?:gcts|daams)\.(\d+)\.(mean_offset|c)", key):
            heads.setdefault(_PARAMETERS[found[2]], {})[int(found[1])] = value
        else:
            ours[rename(key, _PAIRS)] = value
    for name, parts in heads.items():
        ours[f"gate.{name}"] = torch.cat([parts[head] for head in range(len(parts))])
    return ours


def to_official(state: Mapping[str, Tensor], heads: str = "gcts") -> dict[str, Tensor]:
    """An experiment's state dict of ours.

    Args:
        state: ours; or gradients by the same names.
        heads: what its heads are called: "gcts" for speech, "daams" for vision and text.
    """
    pairs = [(ours, theirs) for theirs, ours in _PAIRS]
    official = {}
    for name, value in state.items():
        if not name.startswith("gate."):
            official[rename(name, pairs)] = value
            continue
        theirs = {ours: theirs for theirs, ours in _PARAMETERS.items()}[name[5:]]
        for head, part in enumerate(value):
            official[f"daam.{heads}.{head}.{theirs}"] = part[None]
    return official


def library_layer(official: Mapping[str, Any], index: int = 0) -> GaussianAdaptiveAttention:
    """Our layer for the arguments of the library's classes; those of a block by their index."""

    def pick(*names: str) -> Any:
        value = next(official[name] for name in names if name in official)
        return value[index] if isinstance(value, list | tuple) else value

    return GaussianAdaptiveAttention(
        pick("norm_axis", "norm_axes"), pick("num_heads"), pick("num_gaussians"),
        padding_value=official.get("padding_value"),
    )  # fmt: skip


def library_weights(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The weights of `library_layer`, out of the library's state dict.

    Args:
        state: of a layer, with or without heads, or of a block.
        prefix: of the layer's keys, as "layers.0.".
    """
    ours = {}
    for theirs, name in (("mean_offsets", "offset"), ("c", "spread")):
        heads = [
            state[key]
            for head in range(len(state))
            if (key := f"{prefix}attention_heads.{head}.{theirs}") in state
        ]
        ours[name] = torch.stack(heads or [state[f"{prefix}{theirs}"]])
    return ours
