"""Experiments U1 to U6 of universal approximation."""

from . import certificate, maps, positions, random_maps, sharpness, smooth, trained

EXPERIMENTS = tuple(
    module.EXPERIMENT
    for module in (certificate, random_maps, maps, trained, positions, sharpness, smooth)
)
