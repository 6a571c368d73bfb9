"""Small language models on core-attn."""

from .models import VARIANTS, Decoder, DecoderConfig, State, create

__all__ = ["VARIANTS", "Decoder", "DecoderConfig", "State", "create"]
