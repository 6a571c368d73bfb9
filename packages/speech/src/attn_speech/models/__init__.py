"""The networks of this package, by name."""

import dataclasses
from typing import Any

from torch import nn

from .transformer_tts import Speaker, TransformerTTS, TransformerTTSConfig

__all__ = ["create", "VARIANTS", "TransformerTTS", "TransformerTTSConfig", "Speaker"]

VARIANTS: dict[str, Any] = {
    "tts_paper": TransformerTTSConfig(),
    "tts_tiny": TransformerTTSConfig(
        embed_dim=96, dim=96, heads=4, encoder_depth=2, decoder_depth=2, encoder_hidden=256,
        decoder_hidden=256, encoder_prenet_dim=96, decoder_prenet_dim=96, postnet_dim=96,
        reduction=4, encoder_prenet_dropout=0.2, postnet_dropout=0.2,
    ),
}  # fmt: skip


def create(name: str, **changes: Any) -> nn.Module:
    """Builds a named model with some fields of its configuration changed."""
    return dataclasses.replace(VARIANTS[name], **changes).build()
