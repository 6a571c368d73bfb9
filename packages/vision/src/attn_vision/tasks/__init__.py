"""What can be trained."""

from .classification import ImageClassification

__all__ = ["ImageClassification"]
