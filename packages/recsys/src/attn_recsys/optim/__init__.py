"""Optimisers: TensorFlow's forms, and those that touch only the rows of the batch."""

from .dense import AdagradTF, AdamTF

__all__ = ["AdamTF", "AdagradTF"]
