"""What can be trained on."""

from .batching import SegmentBatch, SpeechBatch, frame_batches
from .clips import Clip, Preparation, Prepared, Utterance, prepare
from .module import SpeechData
from .sources import ClipFolder, LibriTTS, LJSpeech, PackagedClips, PicoCorpus, Source

__all__ = [
    "SpeechData",
    "Source",
    "PicoCorpus",
    "PackagedClips",
    "LJSpeech",
    "LibriTTS",
    "ClipFolder",
    "SpeechBatch",
    "SegmentBatch",
    "frame_batches",
    "Clip",
    "Utterance",
    "Preparation",
    "Prepared",
    "prepare",
]
