"""Tasks: the next token, and the class of a text."""

from .classification import TextClassification
from .language_model import LanguageModel

__all__ = ["LanguageModel", "TextClassification"]
