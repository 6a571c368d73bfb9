"""Checkpoints of ridgerchu/SpikeGPT (`GPT.state_dict()`)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.spikegpt import SpikeGPTConfig
from .keys import count, renamed, require, reverse

_MIX = {"att": "mixer", "ffnPre": "mixer", "ffn": "feed_forward"}
TABLE = [
    ("emb.weight", "embed.tokens.weight"),
    ("blocks.0.ln0.{p}", "embed.norm.{p}"),
    ("blocks.{i}.ln1.{p}", "blocks.{i}.norm1.{p}"),
    ("blocks.{i}.ln2.{p}", "blocks.{i}.norm2.{p}"),
    *(
        (f"blocks.{{i}}.{theirs}.time_{old}", f"blocks.{{i}}.{ours}.branch.{new}")
        for theirs, ours in _MIX.items()
        for old, new in (
            ("decay", "decay"), ("first", "bonus"), ("mix_k", "mix_k"), ("mix_v", "mix_v"),
            ("mix_r", "mix_r"),
        )
    ),
    *(
        (f"blocks.{{i}}.{theirs}.{{p}}.weight", f"blocks.{{i}}.{ours}.branch.{{p}}.weight")
        for theirs, ours in _MIX.items()
    ),
    ("ln_out.{p}", "norm.{p}"),
    ("head.weight", "head.weight"),
]  # fmt: skip


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> SpikeGPTConfig:
    """Our configuration; what `config` does not say is read off the checkpoint.

    Args:
        config: official names: ctx_len, model_type; {} for a checkpoint alone.
        state: the official state dict.

    Raises:
        ValueError: keys are missing.
    """
    require(state, ("emb.weight", "head.weight", "ln_out.weight"))
    vocab, dim = state["emb.weight"].shape
    return SpikeGPTConfig(
        vocab=vocab,
        dim=dim,
        depth=count(state, "blocks.{i}.ln1.weight"),
        context=config.get("ctx_len", 1024),
        first_feed_forward="blocks.0.ffnPre.key.weight" in state,
    )


def from_official(state: Mapping[str, Tensor], config: SpikeGPTConfig) -> dict[str, Tensor]:
    """Our state dict.

    Raises:
        ValueError: a key is unknown; the message names it.
    """
    return {
        name: tensor.flatten() if ".mix_" in name else tensor
        for name, tensor in renamed(state, TABLE).items()
    }


def to_official(state: Mapping[str, Tensor], config: SpikeGPTConfig) -> dict[str, Tensor]:
    """The official state dict."""
    table = reverse(TABLE)
    if config.first_feed_forward:
        table = [
            (ours.replace("{i}", "0"), theirs.replace("{i}", "0"))
            for ours, theirs in table
            if ".ffnPre." in theirs
        ] + table
    return {
        name: tensor[None, None] if ".time_mix_" in name else tensor
        for name, tensor in renamed(state, table).items()
    }
