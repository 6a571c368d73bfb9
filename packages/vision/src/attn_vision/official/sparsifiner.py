"""Sparsifiner checkpoints in the layout of lim142857/Sparsifiner, and dense ViTs made sparse."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from ..models.sparsifiner import SparsifinerConfig
from ._fields import fitting, renamed
from .vit import config_from as vit_config

_OWN = {
    "attn_keep_rate_list": "keep_rates",
    "token_keep_rate_list": "token_keep_rates",
    "token_pruning_loc_indicator": "prunes_tokens",
    "reduce_n_factor": "reduce_n",
    "reduce_c_factor": "reduce_c",
    "share_inout_proj": "shared_basis",
    "qk_scale": "qk_scale",
}
_SPAR = {
    "topk": "top_coefficients", "row": "prune_rows", "basis_threshold": "basis_threshold",
    "coef_threshold": "coefficient_threshold", "score_threshold": "score_threshold",
}  # fmt: skip
_APART = ("spar", "cfg", "mode", "distill")


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> SparsifinerConfig:
    """Our configuration for the arguments and the weights of an official model.

    Args:
        config: arguments of the official constructor. Its settings are either short, as `spar`
            with `topk`, `row`, `basis_threshold`, `coef_threshold` and `score_threshold`, or the
            official tree, as `cfg` with SPAR in it.
        state: its state dict.

    Raises:
        ValueError: an argument has no counterpart here.

    Example:
        >>> config_from({"attn_keep_rate_list": [0.4], "spar": {"topk": 3}}, {}).keep_rates[0]
        0.4
    """
    # What `mode` and `spar.recon` say is not of the model but of a call: see `reconstructed`.
    spar = {key: x for key, x in config.get("spar", {}).items() if key != "recon"}
    if "cfg" in config:
        try:
            spar |= _short(config["cfg"]["SPAR"])
        except KeyError as error:
            raise ValueError(f"cfg has no {error} where the official settings have it") from error
    other = {key: x for key, x in config.items() if key not in {*_OWN, *_APART}}
    own = renamed({key: x for key, x in config.items() if key in _OWN}, _OWN)
    own |= renamed(spar, _SPAR)
    fields: dict[str, Any] = asdict(vit_config(other, state)) | own
    return SparsifinerConfig(**fields)


def _short(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What of the official settings is of the model, by our short names."""
    coefficients, scores = tree["BASIS_COEF"], tree["ATTN_SCORE"]
    return {
        "topk": coefficients["TOPK"] if coefficients["USE_TOPK"] else None,
        "coef_threshold": coefficients["THRESHOLD"],
        "score_threshold": None if scores["USE_TOPK"] else scores["THRESHOLD"],
        "basis_threshold": tree["BASIS_THRESHOLD"],
        "row": tree["PRUNE_ATTN_MATRIX_ROW"],
    }


def from_official(state: Mapping[str, Tensor], config: SparsifinerConfig) -> dict[str, Tensor]:
    """Our state dict from an official one; the names agree.

    Raises:
        ValueError: it is not of this model, or for another image size; the first names that
            differ are listed.
    """
    return fitting(state, config, "Sparsifiner")


def from_dense(state: Mapping[str, Tensor], config: SparsifinerConfig) -> dict[str, Tensor]:
    """A Sparsifiner's state dict from that of any DeiT or timm ViT, the predictors untrained.

    Raises:
        ValueError: it is not of this backbone; the first names that differ are listed.
    """
    fresh = config.build().state_dict()
    predictors = {name: x for name, x in fresh.items() if "mask_predictor" in name}
    return fitting({**state, **predictors}, config, "ViT backbone")


def to_official(state: Mapping[str, Tensor], config: SparsifinerConfig) -> dict[str, Tensor]:
    """The official state dict from ours; the inverse of `from_official`."""
    return dict(state)
