"""What can be trained."""

from .classification import ImageClassification
from .sparsification import Sparsification
from .token_reduction import TokenReduction

__all__ = ["ImageClassification", "Sparsification", "TokenReduction"]
