"""One attention core: operators, kernels, taps, layers and training."""

from .layers import AttentionLayer, AuxiliaryLoss, KeyValueCache, MultiHeadAttention, losses
from .ops import (
    attention,
    attention_mean,
    attention_row,
    attention_weights,
    bidirectional_linear_attention,
    delta_rule,
    linear_attention,
    relu_attention,
    short_attention,
    short_attention_block,
    use_backend,
    why,
)
from .taps import Last, Mean, Tap, edit, record

__all__ = [
    "attention",
    "attention_weights",
    "attention_row",
    "attention_mean",
    "short_attention",
    "short_attention_block",
    "linear_attention",
    "bidirectional_linear_attention",
    "delta_rule",
    "relu_attention",
    "use_backend",
    "why",
    "Tap",
    "record",
    "edit",
    "Last",
    "Mean",
    "AttentionLayer",
    "MultiHeadAttention",
    "KeyValueCache",
    "AuxiliaryLoss",
    "losses",
]
