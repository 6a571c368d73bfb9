"""What can be trained."""

from .classification import UtteranceClassification
from .synthesis import SpeechSynthesis
from .vocoding import Vocoding

__all__ = ["SpeechSynthesis", "UtteranceClassification", "Vocoding"]
