"""Checkpoints in the layout of the authors' code."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .model import CausalStack, ICLConfig, SingleLayer

NAMES = ("q_proj", "k_proj", "v_proj", "o_proj")
MASK = re.compile(r"attention_layers\.\d+\.bias")  # a buffer, of what hides later tokens


def from_official(
    state: Mapping[str, Tensor], config: ICLConfig | None = None
) -> SingleLayer | CausalStack:
    """Builds the model that a state dict of the authors' code describes.

    Args:
        state: with keys attention_layer.* (one layer), or attention_layers.<i>.* and final_linear.
        config: the shape; read off the weights where None, for one label per token and no tying,
            which the weights do not tell.

    Returns:
        A layer, or a stack with compat="official-stack".

    Raises:
        ValueError: keys are missing or shapes do not fit, named with what is expected.

    Example:
        >>> layer = SingleLayer(ICLConfig(d=3))
        >>> from_official(to_official(layer)).config == layer.config
        True
    """
    state = {key: value for key, value in state.items() if not MASK.fullmatch(key)}
    config = _shape(state) if config is None else config
    if config.layers > 1:
        model = CausalStack(config, compat="official-stack")
        if config.tied:
            state = {
                k: v for k, v in state.items() if k.startswith(("attention_layers.0.", "final"))
            }
    else:
        model = SingleLayer(config)
    for key, want in model.state_dict().items():
        if key not in state:
            raise ValueError(f"checkpoint lacks {key}; it has {sorted(state)}")
        rows = state[key].shape[0]
        if key.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")) and rows != len(want):
            raise ValueError(f"checkpoint has H*D rows = {rows} in {key}, expected {len(want)}")
        if state[key].shape != want.shape:
            raise ValueError(
                f"checkpoint has {key} of shape {tuple(state[key].shape)}, "
                f"expected {tuple(want.shape)}"
            )
    unknown = sorted(set(state) - set(model.state_dict()))
    if unknown:
        raise ValueError(f"checkpoint has unknown entries {unknown}")
    model.load_state_dict(state)
    return model


def _shape(state: Mapping[str, Tensor]) -> ICLConfig:
    """The shape that the weights have, for one label per token."""
    layers = len({key.split(".")[1] for key in state if key.startswith("attention_layers.")})
    key = f"{'attention_layers.0' if layers else 'attention_layer'}.q_proj.weight"
    if key not in state:
        raise ValueError(f"checkpoint lacks {key}; it has {sorted(state)}")
    rows, width = state[key].shape
    if rows % width:
        raise ValueError(
            f"checkpoint has H*D rows = {rows}, expected a multiple of the token width D = {width}"
        )
    return ICLConfig(width - 1, 1, rows // width, max(layers, 1))


def to_official(model: SingleLayer | CausalStack) -> dict[str, Tensor]:
    """The state dict under the authors' names, with the stack's mask buffers.

    Example:
        >>> sorted(to_official(SingleLayer(ICLConfig(d=3))))[0]
        'attention_layer.k_proj.weight'
    """
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    if isinstance(model, CausalStack):
        if model.config.tied:
            for i in range(1, model.config.layers):
                for name in NAMES:
                    state[f"attention_layers.{i}.{name}.weight"] = state[
                        f"attention_layers.0.{name}.weight"
                    ]
        for i in range(model.config.layers):
            state[f"attention_layers.{i}.bias"] = torch.tensor(-1e9)
    return state


def load_checkpoint(path: str | Path, config: ICLConfig | None = None) -> SingleLayer | CausalStack:
    """Reads a file written by the authors' training notebook, or a bare state dict.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as in `from_official`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    content = torch.load(path, map_location="cpu", weights_only=True)
    return from_official(content.get("model", content), config)
