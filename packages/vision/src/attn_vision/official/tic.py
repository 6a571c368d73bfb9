"""The demonstration layer of zs670980918/MSA-Conv and its weights."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.msa_conv import MSAConvLayer
from ._fields import renamed

_FIELDS = {
    "input_channel": "dim", "output_channel": "out_dim", "kernel_size": "kernel",
    "stride": "stride", "dilation": "dilation", "dropout": "dropout", "padding": "padding",
    "bias": "bias",
}  # fmt: skip
_CALL = ("H", "W", "im2col_step")  # of the map, and how its CUDA code cuts a batch
_NAMES = {"qkv_conv.": "attention.qkv.", "mlp.": "conv."}


def layer_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> MSAConvLayer:
    """The layer of the official class MSA_Conv_2d, with its weights.

    Args:
        config: arguments of its constructor; sizes of the map (H, W) are ignored.
        state: its state dict.

    Raises:
        ValueError: an argument has no counterpart, or weights are missing or of another shape.

    Example:
        >>> official = layer_to(MSAConvLayer(6, 8, 3))
        >>> arguments = {"input_channel": 6, "output_channel": 8, "kernel_size": 3}
        >>> layer_from(arguments, official).conv.out_channels
        8
    """
    layer = MSAConvLayer(
        **renamed({name: _tuple(x) for name, x in config.items() if name not in _CALL}, _FIELDS)
    )
    weights = {_renamed(name, _NAMES): x for name, x in state.items()}
    if "attention.qkv.weight" in weights:
        weights["attention.qkv.weight"] = weights["attention.qkv.weight"].flatten(1)
    want = {name: x.shape for name, x in layer.state_dict().items()}
    have = {name: x.shape for name, x in weights.items()}
    if want != have:
        wrong = sorted(name for name in want | have if want.get(name) != have.get(name))
        raise ValueError(f"not the weights of this MSA-Conv layer: {', '.join(wrong[:3])}")
    layer.load_state_dict(weights)
    return layer


def layer_to(layer: MSAConvLayer) -> dict[str, Tensor]:
    """The official state dict of a layer; the inverse of `layer_from`."""
    return renamed_to_official(layer.state_dict())


def renamed_to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights, or their gradients, under the official names and in the official shapes."""
    theirs = {ours: name for name, ours in _NAMES.items()}
    official = {_renamed(name, theirs): x for name, x in state.items()}
    weight = official["qkv_conv.weight"]
    return official | {"qkv_conv.weight": weight[:, :, None, None]}


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _tuple(x: Any) -> Any:
    return tuple(x) if isinstance(x, list) else x
