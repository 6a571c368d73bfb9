"""Attention mechanisms as modules over (batch, tokens, dim)."""

from .attention_layer import AttentionLayer
from .auxiliary_loss import AuxiliaryLoss, losses, mean_over_processes
from .dropout import Dropout
from .gaussian_adaptive import (
    GaussianAdaptiveAttention,
    GaussianAdaptiveBlock,
    GaussianGate,
    SummedGroupAttention,
    importance_factor,
)
from .head_gate import HeadGate, chosen_rows_attention, query_norm_gate
from .mixture_of_heads import GatedHeads, MixtureOfHeadAttention
from .multi_head_attention import KeyValueCache, MultiHeadAttention

__all__ = [
    "AttentionLayer",
    "MultiHeadAttention",
    "KeyValueCache",
    "GaussianGate",
    "GaussianAdaptiveAttention",
    "GaussianAdaptiveBlock",
    "SummedGroupAttention",
    "importance_factor",
    "MixtureOfHeadAttention",
    "GatedHeads",
    "HeadGate",
    "chosen_rows_attention",
    "query_norm_gate",
    "AuxiliaryLoss",
    "Dropout",
    "losses",
    "mean_over_processes",
]
