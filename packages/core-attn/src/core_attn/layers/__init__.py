"""Attention mechanisms as modules over (batch, tokens, dim)."""

from .attention_layer import AttentionLayer
from .auxiliary_loss import AuxiliaryLoss, losses
from .multi_head_attention import KeyValueCache, MultiHeadAttention

__all__ = ["AttentionLayer", "AuxiliaryLoss", "KeyValueCache", "MultiHeadAttention", "losses"]
