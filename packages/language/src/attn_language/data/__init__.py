"""Data modules: texts to go on from, and texts with labels."""

from .labeled import LabeledBatch, LabeledTable, LabeledText, Reviews, TopicParagraphs
from .text import Shakespeare, TextData, TextFiles, Topics, WikiText2
from .windows import Batch, Windows

__all__ = [
    "Batch",
    "LabeledBatch",
    "LabeledTable",
    "LabeledText",
    "Reviews",
    "Shakespeare",
    "TextData",
    "TextFiles",
    "TopicParagraphs",
    "Topics",
    "WikiText2",
    "Windows",
]
