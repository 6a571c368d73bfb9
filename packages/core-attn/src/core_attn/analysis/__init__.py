"""Looking into any model whose attention can be reached: heads, patterns, circuits, pruning."""

from .amp import Budget, Decoder, Importance, Removal
from .bench import Bench, without
from .curve import curve_of, pruning_curve
from .folder import whole_folder
from .importance import HeadImportance, gradient_importance, head_importance
from .metrics import Outcome, applicable, bootstrap, measure
from .partial import PARTS, PartialPruning, partial_importance
from .patterns import (
    MapSample,
    PatternAutoencoder,
    Patterns,
    find_patterns,
    pattern_name,
    sample_maps,
    train_autoencoder,
)
from .profile import Profile, attention_profile, profile_table
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
    "without",
    "Outcome",
    "measure",
    "applicable",
    "bootstrap",
    "head_importance",
    "HeadImportance",
    "gradient_importance",
    "PARTS",
    "PartialPruning",
    "partial_importance",
    "pruning_curve",
    "curve_of",
    "Profile",
    "attention_profile",
    "profile_table",
    "whole_folder",
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
