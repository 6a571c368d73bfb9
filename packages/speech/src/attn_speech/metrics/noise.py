"""A judge of noise: DNSMOS guesses what listeners would say of a suppressor's output."""

from importlib.util import find_spec
from typing import Any

import torchaudio
from jaxtyping import Float
from torch import Tensor

NAMES = {"ovrl_mos": "overall", "sig_mos": "signal", "bak_mos": "background", "p808_mos": "p808"}


def can_judge_noise() -> bool:
    """Whether DNSMOS is installed."""
    return all(find_spec(name) is not None for name in ("speechmos", "librosa", "onnxruntime"))


def dnsmos(audio: Float[Tensor, " time"], rate: int) -> dict[str, float]:
    """Opinion scores from 1 to 5 that a network guesses: overall, signal, background, p808.

    They tell noisy speech from clean; a formant synthesizer gets nearly what recordings get, so
    that they say nothing of naturalness.

    Args:
        audio: in [-1, 1].
        rate: samples a second.

    Raises:
        ModuleNotFoundError: it is not installed.
        ValueError: there are no samples.

    Source: Reddy et al., 2021, "DNSMOS P.835", arXiv 2110.01763.
    """
    if not can_judge_noise():
        raise ModuleNotFoundError("DNSMOS is not installed: pip install attn-speech[dnsmos]")
    if len(audio) == 0:
        raise ValueError("audio has no samples")
    from speechmos import dnsmos as model

    if rate != 16000:
        audio = torchaudio.functional.resample(audio, rate, 16000)
    scores: Any = model.run(audio.clamp(-1, 1).numpy(), 16000)
    return {ours: float(scores[theirs]) for theirs, ours in NAMES.items()}
