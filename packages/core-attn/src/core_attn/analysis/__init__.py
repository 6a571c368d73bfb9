"""Looking into any model whose attention can be reached: heads, patterns, circuits, pruning."""

from .amp import Budget, Decoder, Importance, Removal
from .importance import (
    Bench,
    HeadImportance,
    PartialPruning,
    gradient_importance,
    head_importance,
    partial_importance,
    pruning_curve,
)
from .metrics import Outcome, bootstrap, measure
from .patterns import (
    MapSample,
    PatternAutoencoder,
    Patterns,
    find_patterns,
    pattern_name,
    sample_maps,
    train_autoencoder,
)
from .prune import pruned
from .restart import Chain
from .sites import Site, Sites, find_sites
from .strength import Layout, Strength, attention_strength, offset_map, strength_table
from .surgery import prune_decoder, recover
from .units import UnitSite, find_units

__all__ = [
    "find_sites",
    "Sites",
    "Site",
    "Chain",
    "Bench",
    "Outcome",
    "measure",
    "bootstrap",
    "head_importance",
    "HeadImportance",
    "gradient_importance",
    "PartialPruning",
    "partial_importance",
    "pruning_curve",
    "Layout",
    "Strength",
    "attention_strength",
    "strength_table",
    "offset_map",
    "PatternAutoencoder",
    "train_autoencoder",
    "MapSample",
    "sample_maps",
    "Patterns",
    "find_patterns",
    "pattern_name",
    "pruned",
    "find_units",
    "UnitSite",
    "Decoder",
    "Importance",
    "Budget",
    "Removal",
    "prune_decoder",
    "recover",
]
