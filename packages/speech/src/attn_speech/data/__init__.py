"""What can be trained on."""

from .batching import SegmentBatch, SpeechBatch, frame_batches
from .clips import Clip, Preparation, Prepared, Utterance, prepare
from .labelled import IEMOCAP, Labelled, LabelledSource, LabelTable, SpokenDigits
from .module import SpeechData
from .sources import ClipFolder, LibriTTS, LJSpeech, PackagedClips, PicoCorpus, Source
from .utterances import LayeredEncoder, UtteranceBatch, UtteranceData

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
    "UtteranceData",
    "UtteranceBatch",
    "LayeredEncoder",
    "LabelledSource",
    "Labelled",
    "SpokenDigits",
    "IEMOCAP",
    "LabelTable",
]
