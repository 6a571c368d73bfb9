"""Operators: functions of tensors, each with a plain reference and faster backends."""

from ._dispatch import Choice, Explanation, use_backend, why
from .attention import attention, attention_mean, attention_row, attention_weights

__all__ = [
    "Choice",
    "Explanation",
    "attention",
    "attention_mean",
    "attention_row",
    "attention_weights",
    "use_backend",
    "why",
]
