"""The experiments' and the library's Gaussian adaptive attention: weights as ours, and back."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from core_attn import GaussianAdaptiveAttention, GaussianAdaptiveBlock

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


def library(official: Mapping[str, Any]) -> GaussianAdaptiveAttention | GaussianAdaptiveBlock:
    """Our module for one of the library's classes and its arguments.

    Args:
        official: its arguments by name, and its name as "class". `GaussianAdaptiveAttention` takes
            a number of heads and has one all the same.
    """
    padding = official.get("padding_value")
    if official["class"] == "GaussianBlock":
        return GaussianAdaptiveBlock(
            official["norm_axes"], official["num_heads"], official["num_gaussians"],
            padding_value=padding,
        )  # fmt: skip
    heads = official["num_heads"] if official["class"].startswith("MultiHead") else 1
    return GaussianAdaptiveAttention(
        official["norm_axis"], heads, official["num_gaussians"], padding_value=padding
    )


def library_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of `library`'s module, out of the library's state dict.

    Raises:
        ValueError: a key is unknown.
    """
    parts: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        found = re.fullmatch(r"(layers\.\d+\.)?(?:attention_heads\.(\d+)\.)?(mean_offsets|c)", key)
        if found is None:
            raise ValueError(f"unknown weight {key!r}")
        name = {"mean_offsets": "offset", "c": "spread"}[found[3]]
        parts.setdefault(f"{found[1] or ''}{name}", {})[int(found[2] or 0)] = value
    return {name: torch.stack([heads[i] for i in sorted(heads)]) for name, heads in parts.items()}
