"""r9y9's WaveNet vocoder: its options and its state dict as ours, and back."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.wavenet import WaveNetConfig
from .renaming import check_complete, rename

_DISTRIBUTIONS = {"Logistic": "logistic", "Normal": "gaussian"}


def config_from(
    official: Mapping[str, Any], *, levels: int = 65536, log_scale_min: float = -16.0
) -> WaveNetConfig:
    """Our configuration of the arguments of the reference's constructor; defaults are its own.

    Args:
        official: the arguments.
        levels: `quantize_channels` of the recipe.
        log_scale_min: of the recipe.

    Raises:
        ValueError: a distribution or a way of upsampling that this package does not have.
    """
    get = official.get
    scalar = get("scalar_input", False)
    cin, gin = max(get("cin_channels", -1), 0), max(get("gin_channels", -1), 0)
    upsample: Mapping[str, Any] = get("upsample_params") or {}
    upsamples = cin > 0 and get("upsample_conditional_features", False)
    kinds = {"ConvInUpsampleNetwork": "conv_in", "UpsampleNetwork": "upsample"}
    name = get("upsample_net", "ConvInUpsampleNetwork")
    if upsamples and name not in kinds:
        raise ValueError(f"upsample_net must be one of {', '.join(kinds)}, got {name!r}")
    if upsamples and upsample.get("mode", "nearest") != "nearest":
        raise ValueError(f"upsample mode must be nearest, got {upsample['mode']!r}")
    activation = upsample.get("upsample_activation", "none")
    speakers = get("n_speakers") or 0
    embeds = gin > 0 and get("use_speaker_embedding", False)
    distribution = get("output_distribution", "Logistic")
    if scalar and distribution not in _DISTRIBUTIONS:
        raise ValueError(
            f"output_distribution must be one of {', '.join(_DISTRIBUTIONS)}, got {distribution!r}"
        )
    return WaveNetConfig(
        layers=get("layers", 20),
        stacks=get("stacks", 2),
        residual=get("residual_channels", 512),
        gate=get("gate_channels", 512),
        skip=get("skip_out_channels", 512),
        kernel=get("kernel_size", 3),
        dropout=get("dropout", 0.05),
        distribution=_DISTRIBUTIONS[distribution] if scalar else "softmax",  # pyright: ignore
        out_channels=get("out_channels", 256),
        levels=levels,
        log_scale_min=log_scale_min,
        onehot=not scalar,
        mels=cin,
        conditioning=kinds[name] if upsamples else "given",  # pyright: ignore
        scales=tuple(upsample.get("upsample_scales", (4, 4, 4, 4))) if upsamples else (1,),
        pad=upsample.get("cin_pad", 0) if upsamples else 0,  # its own `cin_pad` does nothing
        freq_kernel=upsample.get("freq_axis_kernel_size", 1) if upsamples else 1,
        activation=None if activation == "none" or not upsamples else activation,
        activation_options=dict(upsample.get("upsample_activation_params") or {})
        if upsamples
        else {},
        speaker_dim=gin,
        speakers=speakers if embeds else 0,
    )


def from_official(state: Mapping[str, Any], config: WaveNetConfig) -> dict[str, Tensor]:
    """Our state dict of the reference's, in either spelling of weight norm.

    A saved file's dictionary, which holds it as "state_dict", will do.

    Raises:
        ValueError: a key is unknown, or one is missing; the message names them.
    """
    ours = renamed(state, config)
    check_complete(ours, config)
    return ours


def renamed(state: Mapping[str, Any], config: WaveNetConfig) -> dict[str, Tensor]:
    """The reference's weights under our names, whether or not they are complete."""
    state = state.get("state_dict", state)
    ours = {}
    for key, value in state.items():
        key = key.removeprefix("module.")
        key = re.sub(r"\.parametrizations\.weight\.original0$", ".weight_g", key)
        key = re.sub(r"\.parametrizations\.weight\.original1$", ".weight_v", key)
        ours[_renamed(key, _pairs(config))] = value
    return ours


def to_official(
    state: Mapping[str, Tensor], config: WaveNetConfig, *, parametrized: bool = False
) -> dict[str, Tensor]:
    """The reference's state dict of ours.

    Args:
        state: ours; or gradients by the same names.
        config: ours.
        parametrized: whether weight norm is spelled as torch's parametrizations do, not as
            "weight_g" and "weight_v".
    """
    pairs = [(ours, theirs) for theirs, ours in _pairs(config)]
    official = {_renamed(name, pairs): value for name, value in state.items()}
    if not parametrized:
        return official
    spelled = {"weight_g": "original0", "weight_v": "original1"}
    return {
        re.sub(
            r"(weight_[gv])$", lambda found: f"parametrizations.weight.{spelled[found[1]]}", key
        ): value
        for key, value in official.items()
    }


def _pairs(config: WaveNetConfig) -> list[tuple[str, str]]:
    """Pairs of their name and ours."""
    theirs, ours = "conv_layers.<n>.", "layers.<n>."
    pairs = [
        ("first_conv.", "first."),
        (f"{theirs}conv.", f"{ours}conv."),
        (f"{theirs}conv1x1c.", f"{ours}cond."),
        (f"{theirs}conv1x1g.", f"{ours}who."),
        (f"{theirs}conv1x1_out.", f"{ours}out."),
        (f"{theirs}conv1x1_skip.", f"{ours}skip."),
        ("last_conv_layers.1.", "last1."),
        ("last_conv_layers.3.", "last2."),
        ("embed_speakers.", "speaker."),
        ("upsample_net.conv_in.", "condition.conv."),
    ]
    step = 3 if config.activation else 2
    inner = "upsample." if config.conditioning == "conv_in" else ""
    for i in range(len(config.scales)):
        pairs.append(
            (f"upsample_net.{inner}up_layers.{1 + i * step}.", f"condition.upsampling.filters.{i}.")
        )
    return pairs


_WEIGHT_NORM = (
    (".weight_g", ".parametrizations.weight.original0"),
    (".weight_v", ".parametrizations.weight.original1"),
)


def _renamed(name: str, pairs: list[tuple[str, str]]) -> str:
    for official, ours in _WEIGHT_NORM:
        for old, new in ((official, ours), (ours, official)):
            if name.endswith(old):
                return rename(name.removesuffix(old) + new, pairs)
    return rename(name, pairs)
