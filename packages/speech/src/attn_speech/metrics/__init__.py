"""Objective measures of speech."""

from .alignment import Diagonality, Reading, diagonality, durations, reading
from .distances import log_mel_l1, mel_cepstral_distortion, warping_path
from .listening import can_listen, transcribe, word_errors
from .noise import can_judge_noise, dnsmos

__all__ = [
    "log_mel_l1",
    "mel_cepstral_distortion",
    "warping_path",
    "diagonality",
    "Diagonality",
    "durations",
    "reading",
    "Reading",
    "transcribe",
    "word_errors",
    "can_listen",
    "dnsmos",
    "can_judge_noise",
]
