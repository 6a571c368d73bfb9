"""Operators: functions of tensors, each with a plain reference and faster backends."""

from ._dispatch import Choice, Explanation, use_backend, why
from .attention import attention, attention_mean, attention_row, attention_weights
from .delta_rule import delta_rule
from .gather_attention import (
    cluster_attention,
    cluster_weights,
    gather_attention,
    gather_weights,
    scatter_mean,
    scatter_sum,
    top_positions,
)
from .linear_attention import bidirectional_linear_attention, linear_attention
from .relu_attention import relu_attention
from .short_attention import short_attention
from .short_attention_block import short_attention_block

__all__ = [
    "Choice",
    "Explanation",
    "attention",
    "attention_mean",
    "attention_row",
    "attention_weights",
    "short_attention",
    "short_attention_block",
    "bidirectional_linear_attention",
    "cluster_attention",
    "cluster_weights",
    "delta_rule",
    "gather_attention",
    "gather_weights",
    "scatter_mean",
    "scatter_sum",
    "top_positions",
    "linear_attention",
    "relu_attention",
    "use_backend",
    "why",
]
