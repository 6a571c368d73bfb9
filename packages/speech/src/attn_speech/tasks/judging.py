"""The table of measures of a synthesizer."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..audio.features import MelFeatures
from ..metrics.alignment import diagonality
from ..metrics.distances import log_mel_l1, mel_cepstral_distortion
from ..metrics.listening import can_listen, plain_words, transcribe, word_errors
from ..models.decoding import Decoded


class Judge:
    """Measures utterances one by one and gives their means.

    Args:
        features: of the mels.
        head: layer and head that run along the text.
        listen: whether what is said is transcribed, where pocketsphinx is installed.
    """

    def __init__(self, features: MelFeatures, head: tuple[int, int], *, listen: bool = True):
        self.features, self.head = features, head
        self.listens = listen and can_listen()
        self.rows: list[dict[str, float]] = []

    def add(
        self,
        *,
        true: Float[Tensor, "frames mels"],
        shown: Float[Tensor, "frames mels"],
        said: Float[Tensor, "more_frames mels"],
        decoded: Decoded,
        text: str,
    ) -> None:
        """Measures one utterance.

        Args:
            true: its log mels.
            shown: those predicted from the true ones before them.
            said: those said freely.
            decoded: what decoding gave.
            text: what should be said.
        """
        base = 10.0 if self.features.log_base == "10" else 2.718281828459045
        measured, (layer, head) = diagonality(decoded.pattern), self.head
        row: dict[str, Any] = {
            "mel_l1": log_mel_l1(shown, true),
            "mcd_dtw": mel_cepstral_distortion(said, true, log_base=base),
            "stop_error": abs(len(said) - len(true)) / len(true),
            "stopped": float(not decoded.limited),
            "focus": float(measured.focus[layer, head]),
            "band": float(measured.band[layer, head]),
            "monotonic": float(measured.monotonic[layer, head]),
        }
        if self.listens:
            words = plain_words(text)
            heard = transcribe(self.features.griffin_lim(said), self.features.rate)
            true_heard = transcribe(self.features.griffin_lim(true), self.features.rate)
            row |= {
                "words": len(words), "word_errors": word_errors(heard, words),
                "word_errors_of_data": word_errors(true_heard, words),
            }  # fmt: skip
        self.rows.append(row)

    def table(self) -> dict[str, float]:
        """The mean of every measure; word error rates are of all words together."""
        if not self.rows:
            return {}
        sums = {key: torch.tensor([row[key] for row in self.rows]).sum() for key in self.rows[0]}
        words = sums.pop("words", None)
        table = {}
        for key, total in sums.items():
            if key.startswith("word_errors") and words is not None:
                table[key.replace("errors", "error_rate")] = float(total / words.clamp(min=1))
            else:
                table[key] = float(total / len(self.rows))
        return table
