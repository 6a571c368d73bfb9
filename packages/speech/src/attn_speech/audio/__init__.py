"""Sound files and the features that models see of them."""

from .features import MelFeatures
from .files import Sound, WavWriter, check_audio, leveled, read_audio, trim, wav_bytes

__all__ = [
    "MelFeatures",
    "Sound",
    "WavWriter",
    "check_audio",
    "leveled",
    "read_audio",
    "trim",
    "wav_bytes",
]
