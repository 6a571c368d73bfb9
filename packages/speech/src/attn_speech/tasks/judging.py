"""The table of measures of a synthesizer."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..audio.features import MelFeatures
from ..metrics.alignment import diagonality
from ..metrics.distances import log_mel_l1, mel_cepstral_distortion
from ..metrics.listening import Listener, can_listen, plain_words, transcribe, word_errors
from ..metrics.noise import can_judge_noise, dnsmos
from ..models.decoding import Decoded


class Judge:
    """Measures utterances one by one and gives their means.

    Args:
        features: of the mels.
        head: layer and head that run along the text.
        listen: whether what is said is made sound and heard, by those judges that are installed.
        listener: who transcribes it.
    """

    def __init__(
        self,
        features: MelFeatures,
        head: tuple[int, int],
        *,
        listen: bool = True,
        listener: Listener = "pocketsphinx",
    ):
        self.features, self.head = features, head
        self.listener: Listener = listener
        self.transcribes = listen and can_listen(listener)
        self.rates_noise = listen and can_judge_noise()
        self.rows: list[dict[str, float]] = []

    @torch.autocast("cpu", enabled=False)  # sounds and distances are of full precision
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
            "free_mel_l1_dtw": log_mel_l1(said, true, align=True),
            "mcd_dtw": mel_cepstral_distortion(said, true, log_base=base),
            "stop_error": abs(len(said) - len(true)) / len(true),
            "stopped": float(not decoded.limited),
            "focus": float(measured.focus[layer, head]),
            "band": float(measured.band[layer, head]),
            "monotonic": float(measured.monotonic[layer, head]),
        }
        sounds = {}
        if self.transcribes or self.rates_noise:
            sounds = {"": self._sound(said), "_of_data": self._sound(true)}
        words = plain_words(text)
        for whose, sound in sounds.items():
            if self.transcribes:
                heard = transcribe(sound, self.features.rate, self.listener)
                row |= {"words": len(words), f"word_errors{whose}": word_errors(heard, words)}
            if self.rates_noise:
                row[f"dnsmos{whose}"] = dnsmos(sound, self.features.rate)["overall"]
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

    def _sound(self, log_mel: Tensor) -> Tensor:
        audio = self.features.griffin_lim(log_mel)
        return audio / audio.abs().max().clamp(min=1.0)
