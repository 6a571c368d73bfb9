"""Speech on core-attn: text to a waveform, a neural vocoder, utterance classification."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models import VARIANTS, create
    from .text import phonemes
    from .voice import Spoken, Voice, load

__all__ = ["load", "Voice", "Spoken", "phonemes", "create", "VARIANTS"]

# torch takes seconds to import; `recipes` and `--help` need not wait.
_LAZY = {
    "load": "voice",
    "Voice": "voice",
    "Spoken": "voice",
    "phonemes": "text",
    "create": "models",
    "VARIANTS": "models",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
