"""Operators: functions of tensors, each with a plain reference and faster backends."""

from ._attention.call import AttentionOptions, WeightsOptions
from ._attention.normalizer import attention_lse
from ._attention.operator import attention, attention_mean, attention_row, attention_weights
from ._delta_rule.operator import delta_rule
from ._dispatch import Choice, Explanation, use_backend, why
from ._dropout.operator import dropout
from ._edge_attention.angles import angle_legendre
from ._edge_attention.operator import edge_attention
from ._gather_attention.operator import (
    cluster_attention,
    cluster_weights,
    gather_attention,
    gather_weights,
    scatter_mean,
    scatter_sum,
    top_positions,
)
from ._lif.operator import lif
from ._linear_attention.operator import bidirectional_linear_attention, linear_attention
from ._neighborhood_attention.operator import neighborhood_attention, neighborhood_weights
from ._pluecker_mean.operator import pluecker_mean
from ._relu_attention.operator import relu_attention
from ._short_attention.call import ShortOptions
from ._short_attention.operator import short_attention
from ._short_attention_block.call import Residual
from ._short_attention_block.operator import short_attention_block
from ._wkv.operator import wkv

__all__ = [
    "AttentionOptions",
    "Choice",
    "Explanation",
    "Residual",
    "ShortOptions",
    "WeightsOptions",
    "angle_legendre",
    "attention",
    "attention_lse",
    "attention_mean",
    "attention_row",
    "attention_weights",
    "short_attention",
    "short_attention_block",
    "bidirectional_linear_attention",
    "cluster_attention",
    "cluster_weights",
    "delta_rule",
    "dropout",
    "edge_attention",
    "gather_attention",
    "gather_weights",
    "scatter_mean",
    "scatter_sum",
    "top_positions",
    "linear_attention",
    "neighborhood_attention",
    "neighborhood_weights",
    "relu_attention",
    "wkv",
    "lif",
    "pluecker_mean",
    "use_backend",
    "why",
]
