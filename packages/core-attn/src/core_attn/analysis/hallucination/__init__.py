"""Heads that look at the picture, and captions that name what is not in it.

Source: He et al., 2025, "Cracking the Code of Hallucination in LVLMs with Vision-aware Head
Divergence", arXiv 2412.13949.
"""

from .divergence import Rule, VisionLanguage, head_divergence, token_divergence, top_divergence
from .reinforce import Reinforcement, reinforce
from .scores import Chair, Pope, chair, mentioned, pope

__all__ = [
    "VisionLanguage",
    "Rule",
    "head_divergence",
    "token_divergence",
    "top_divergence",
    "reinforce",
    "Reinforcement",
    "mentioned",
    "chair",
    "Chair",
    "pope",
    "Pope",
]
