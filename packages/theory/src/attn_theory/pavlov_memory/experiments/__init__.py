"""Experiments P1 to P8 of attention as conditioning."""

from . import (
    capacity,
    conditioning,
    depth,
    errors,
    passes,
    reliability,
    sharpness,
    trained,
)

EXPERIMENTS = tuple(
    module.EXPERIMENT
    for module in (
        errors,
        capacity,
        passes,
        depth,
        reliability,
        conditioning,
        sharpness,
        trained,
    )
)
