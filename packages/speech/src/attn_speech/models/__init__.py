"""The networks of this package, by name."""

from typing import Any

from torch import nn

from core_attn.variants import variant

from .gaam import GaamClassifier, GaamConfig, focal_loss
from .transformer_tts import Speaker, TransformerTTS
from .tts_config import TransformerTTSConfig
from .wavenet import WaveNet, WaveNetConfig

__all__ = [
    "create",
    "VARIANTS",
    "TransformerTTS",
    "TransformerTTSConfig",
    "Speaker",
    "WaveNet",
    "WaveNetConfig",
    "GaamClassifier",
    "GaamConfig",
    "focal_loss",
]

Config = TransformerTTSConfig | WaveNetConfig | GaamConfig

VARIANTS: dict[str, Config] = {
    "tts_paper": TransformerTTSConfig(),
    "tts_espnet": TransformerTTSConfig(
        encoder_hidden=1024, decoder_hidden=1024, encoder_prenet_layers=0, postnet_dim=256,
        encoder_pre_norm=False, decoder_pre_norm=False,
    ),
    "tts_tiny": TransformerTTSConfig(
        embed_dim=96, dim=96, heads=4, encoder_depth=2, decoder_depth=2, encoder_hidden=256,
        decoder_hidden=256, encoder_prenet_dim=96, decoder_prenet_dim=96, postnet_dim=96,
        reduction=4, encoder_prenet_dropout=0.2, postnet_dropout=0.2,
    ),
    "wavenet_mol": WaveNetConfig(),
    "wavenet_mulaw256": WaveNetConfig(
        layers=30, stacks=3, distribution="softmax", out_channels=256, onehot=True
    ),
    "wavenet_gaussian": WaveNetConfig(
        distribution="gaussian", out_channels=2, log_scale_min=-7.0
    ),
    "wavenet_paper": WaveNetConfig(
        layers=20, stacks=2, residual=256, gate=256, skip=256, conditioning="qrnn", scales=(200,),
        pad=0,
    ),
    "wavenet_tiny": WaveNetConfig(
        layers=8, stacks=2, residual=32, gate=64, skip=32, scales=(5, 5, 8)
    ),
    "gaam": GaamConfig(),
    "gaam_one_head": GaamConfig(heads=1),
    "gq_gaam": GaamConfig(mechanism="gq_gaam", grid=(8, 64)),
}  # fmt: skip


def create(name: str, **changes: Any) -> nn.Module:
    """Builds a named model, untrained.

    Args:
        name: a key of `VARIANTS`.
        changes: fields of its configuration that differ.

    Raises:
        ValueError: no model or no field has that name, or a value does not fit.

    Example:
        >>> sum(p.numel() for p in create("tts_paper").parameters()) / 1e6
        52.97...
    """
    return variant(VARIANTS, name, **changes).build()
