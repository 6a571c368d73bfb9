"""SpectFormer checkpoints, vanilla and hierarchical, in the layout of badripatro/SpectFormers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.spectformer import SpectFormerConfig
from ..models.spectformer_hierarchical import SpectFormerHConfig
from ._fields import fitting, renamed
from .vit import FIELDS

_VANILLA = FIELDS | {
    "alpha": "spectral", "uniform_drop": "uniform_drop_path", "dropcls": "head_dropout",
}  # fmt: skip
_STAGED = {
    "img_size": "image_size", "in_chans": "channels", "num_classes": "classes",
    "stem_hidden_dim": "stem_dim", "embed_dims": "dims", "num_heads": "heads",
    "mlp_ratios": "mlp_ratios", "depths": "depths", "norm_eps": "norm_eps",
    "token_label": "token_labels", "drop_path_rate": "drop_path",
}  # fmt: skip
Config = SpectFormerConfig | SpectFormerHConfig


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Config:
    """Our configuration for the arguments and the weights of an official model.

    Which blocks have gates is read off the weights; the official vanilla code always has 4.

    Args:
        config: arguments of either constructor; `embed_dims` marks the hierarchical one.
        state: its state dict.

    Raises:
        ValueError: an argument has no counterpart here.

    Example:
        >>> config_from({"embed_dim": 24, "depth": 6, "num_heads": 6}, {}).spectral
        4
    """
    if "embed_dims" not in config:
        ours: dict[str, Any] = {"heads": 6} | renamed(
            config, _VANILLA, {"representation_size": (None,)}
        )
        if "drop_rate" in config:  # of attention's weights and projection, too
            ours["attention_dropout"] = config["drop_rate"]
        gates = {name for name in state if name.endswith(".filter.complex_weight")}
        if gates:
            ours["spectral"] = len(gates)
        return SpectFormerConfig(**ours)
    rest = {name: x for name, x in config.items() if name != "block_types"}
    only = {
        "sr_ratios": (rest.get("sr_ratios"),), "qkv_bias": (True,),
        "num_stages": (len(config["depths"]),),
    }  # fmt: skip
    ours = renamed(rest, _STAGED, only)
    stages = range(1, len(config["depths"]) + 1)
    if state:
        spectral = tuple(f"block{s}.0.attn.complex_weight" in state for s in stages)
    else:
        types = config.get("block_types", ["spectral", "spectral", "attention", "attention"])
        spectral = tuple(kind == "spectral" for kind in types)
    return SpectFormerHConfig(**{k: _tuple(x) for k, x in ours.items()}, spectral=spectral)


def from_official(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Our state dict from an official one.

    Raises:
        ValueError: it is not of this model; the first names that differ are listed.
    """
    return fitting(under_our_names(state, config), config, "SpectFormer")


def under_our_names(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The weights of an official state dict of any size."""
    ours = {}
    for name, x in state.items():
        for theirs, mine in _names(config):
            if name.startswith(theirs):
                name = mine + name.removeprefix(theirs)
                break
        ours[name.replace(".filter.", ".attn.").replace(".dwconv.dwconv.", ".dwconv.")] = x
    return ours


def to_official(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The official state dict from ours; the inverse of `from_official`."""
    official = {}
    for name, x in state.items():
        if isinstance(config, SpectFormerConfig):
            name = name.replace(".attn.complex_weight", ".filter.complex_weight")
        for theirs, mine in _names(config):
            if name.startswith(mine):
                name = theirs + name.removeprefix(mine)
                break
        official[name.replace(".dwconv.", ".dwconv.dwconv.")] = x
    return official


def _names(config: Config) -> list[tuple[str, str]]:
    """Prefixes of names: the official one and ours."""
    if isinstance(config, SpectFormerConfig):
        return []
    last = len(config.depths)
    return [
        *((f"patch_embed{s + 1}.", f"stages.{s}.embed.") for s in range(last)),
        *((f"block{s + 1}.", f"stages.{s}.blocks.") for s in range(last)),
        *((f"norm{s + 1}.", f"stages.{s}.norm.norm.") for s in range(last)),
        ("post_network.0.", f"stages.{last - 1}.norm.block."),
    ]


def _tuple(x: Any) -> Any:
    return tuple(x) if isinstance(x, list) else x
