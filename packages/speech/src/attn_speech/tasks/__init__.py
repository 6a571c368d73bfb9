"""What can be trained."""

from .synthesis import SpeechSynthesis

__all__ = ["SpeechSynthesis"]
