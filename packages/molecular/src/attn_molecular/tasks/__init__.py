"""What the package trains."""

from .potential_training import PotentialTraining

__all__ = ["PotentialTraining"]
