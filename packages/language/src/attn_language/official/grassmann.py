"""State dicts in the names of the recorded Grassmann cases (no official code was published)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.grassmann import GrassmannConfig
from .keys import count, renamed, reverse

_SHARED = [
    ("W_red.{p}", "mixing.reduce.{p}"),
    ("W_plu.{p}", "mixing.project.{p}"),
    ("W_out.{p}", "mixing.out.{p}"),
    ("W_gate.{p}", "mixing.gate.{p}"),
    ("fc1.{p}", "feed_forward.up.{p}"),
    ("fc2.{p}", "feed_forward.down.{p}"),
    ("ln_mix.{p}", "norm_mix.{p}"),
]
BLOCK = {
    "post": [*_SHARED, ("ln_out.{p}", "norm.{p}")],
    "pre": [*_SHARED, ("ln1.{p}", "norm_in.{p}"), ("ln2.{p}", "norm.{p}")],
}


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> GrassmannConfig:
    """Our configuration of a whole model, or of one block, from the recorded one.

    Args:
        config: with d, r, ff, eps, and windows or schedule; kind ("paper" or "repro") for a block.
        state: the recorded weights.
    """
    is_model = "tok.weight" in state
    names = [name.removeprefix("layers.0.") for name in state]
    offsets = tuple(config.get("windows", (1,)))
    schedule = config.get("schedule")
    return GrassmannConfig(
        vocab=config.get("vocab", 1),
        context=config.get("max_len", config["T"]),
        dim=config["d"],
        depth=count(state, "layers.{i}.W_red.weight") if is_model else 1,
        reduced=config["r"],
        hidden=config["ff"],
        offsets=offsets,
        schedule=None if schedule is None else tuple(map(tuple, schedule)),
        norm="pre" if "ln1.weight" in names else "post",
        out_proj="W_out.weight" in names,
        eps=config["eps"],
    )


def table(config: GrassmannConfig, is_model: bool) -> list[tuple[str, str]]:
    """Recorded names and ours, of a model or of one block."""
    block = BLOCK[config.norm]
    if not is_model:
        return block
    return [
        ("tok.weight", "embed.tokens.weight"),
        ("pos.weight", "embed.positions.weight"),
        ("ln_f.{p}", "norm.{p}"),
        *((f"layers.{{i}}.{old}", f"blocks.{{i}}.{new}") for old, new in block),
    ]


def from_official(state: Mapping[str, Tensor], config: GrassmannConfig) -> dict[str, Tensor]:
    """Our state dict, of a model or of one block."""
    return renamed(state, table(config, "tok.weight" in state))


def to_official(state: Mapping[str, Tensor], config: GrassmannConfig) -> dict[str, Tensor]:
    """The recorded names."""
    return renamed(state, reverse(table(config, "embed.tokens.weight" in state)))
