"""The loss of Transformer TTS: mels, stop, and alignments that run along the diagonal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from .bounds import require_one_of
from .transformer_tts import Prediction

ATTENTIONS = ("encoder", "decoder", "encoder-decoder")


@dataclass(frozen=True)
class TTSLossConfig:
    """What the loss is made of.

    Attributes:
        kind: distance of mels, absolute, squared, or their sum.
        masking: which frames count: "valid" ones alike, "utterance" for every utterance alike,
            or "none" for all of the padded batch.
        stop_weight: of the frames that are the last, against the others.
        guided: attentions that are guided: "encoder", "decoder", "encoder-decoder".
        guided_heads: first heads of each layer that are guided; -1 for all.
        guided_layers: last layers that are guided; -1 for all.
        guided_sigma: width of the diagonal that costs little.
        guided_weight: factor of this part.

    Source: Li et al., 2019, arXiv 1809.08895, section 3.6; Tachibana et al., 2018, arXiv
    1710.08969, section 4.1, for guided attention.

    Example:
        >>> TTSLossConfig(guided=("decoder-encoder",))
        Traceback (most recent call last):
        ValueError: guided has 'decoder-encoder'; there are encoder, decoder, encoder-decoder
    """

    kind: Literal["L1", "L2", "L1+L2"] = "L1"
    masking: Literal["valid", "utterance", "none"] = "valid"
    stop_weight: float = 5.0
    guided: tuple[str, ...] = ()
    guided_heads: int = 2
    guided_layers: int = 2
    guided_sigma: float = 0.4
    guided_weight: float = 1.0

    def __post_init__(self):
        if isinstance(self.guided, str):
            raise ValueError(f"guided must be a list of attentions, got the text {self.guided!r}")
        for name in self.guided:
            if name not in ATTENTIONS:
                raise ValueError(f"guided has {name!r}; there are {', '.join(ATTENTIONS)}")
        require_one_of(("L1", "L2", "L1+L2"), self, "kind")
        require_one_of(("valid", "utterance", "none"), self, "masking")
        if self.guided_sigma <= 0:
            raise ValueError(f"guided_sigma must be positive, got {self.guided_sigma}")

    @property
    def recorded(self) -> str:
        """The layers to record for guided attention, as a pattern of their names."""
        return LAYERS[self.guided[0]] if len(self.guided) == 1 else "*"


LAYERS = {
    "encoder": "encoder.blocks.*.attn",
    "decoder": "decoder.blocks.*.attn",
    "encoder-decoder": "decoder.blocks.*.cross",
}


def tts_losses(
    prediction: Prediction,
    mels: Float[Tensor, "batch frames mels"],
    mel_lengths: Int[Tensor, " batch"],
    config: TTSLossConfig,
    *,
    reduction: int = 1,
    text_lengths: Int[Tensor, " batch"] | None = None,
    patterns: Mapping[str, Float[Tensor, "batch _heads _queries _keys"]] | None = None,
) -> dict[str, Tensor]:
    """The parts of the loss and their sum, "loss".

    Args:
        prediction: of the network for this batch.
        mels: the true frames.
        mel_lengths: frames of each row.
        config: what the loss is made of.
        reduction: frames of one step; what does not fill a group is left out.
        text_lengths: symbols of each row without the end; needed for guided attention.
        patterns: the tap `pattern` of the layers `config.recorded`, by layer name; likewise.

    Returns:
        "l1", "l2", "stop", for each guided attention "guided_<name>", and "loss".
    """
    target_lengths = mel_lengths - mel_lengths % reduction
    target = mels[:, : prediction.after.shape[1]]
    place = torch.arange(target.shape[1], device=mels.device)
    valid = place < target_lengths[:, None]
    # officially the rest of a group that is left out has 0 between two ones
    ends = (place == target_lengths[:, None] - 1) | (place >= mel_lengths[:, None] - 1)
    stop = ends.to(target)
    stop_cost = F.binary_cross_entropy_with_logits(
        prediction.stop_logits, stop, reduction="none",
        pos_weight=torch.as_tensor(config.stop_weight).to(target),
    )  # fmt: skip
    weights = _frame_weights(valid, config.masking)
    parts = {}
    for name, distance in (("l1", torch.abs), ("l2", torch.square)):
        errors = distance(prediction.after - target) + distance(prediction.before - target)
        parts[name] = (errors.mean(-1) * weights).sum()
    parts["stop"] = (stop_cost * weights).sum()
    total = sum(parts[name.lower()] for name in config.kind.split("+")) + parts["stop"]
    for name in config.guided:
        if text_lengths is None or patterns is None:
            raise ValueError("guided attention needs text_lengths and patterns")
        lengths = {"text": text_lengths + 1, "mel": mel_lengths // reduction}
        queries = lengths["text" if name == "encoder" else "mel"]
        keys = lengths["mel" if name == "decoder" else "text"]
        chosen = _chosen(patterns, LAYERS[name], config)
        part = guided_attention(chosen, queries, keys, config.guided_sigma)
        parts[f"guided_{name}"] = config.guided_weight * part
        total = total + parts[f"guided_{name}"]
    return parts | {"loss": total}


def guided_attention(
    pattern: Float[Tensor, "batch heads queries keys"],
    queries: Int[Tensor, " batch"],
    keys: Int[Tensor, " batch"],
    sigma: float,
) -> Float[Tensor, ""]:
    """The mean of attention weights times their distance from the diagonal.

    Args:
        pattern: attention weights.
        queries: valid ones of each row.
        keys: valid ones of each row.
        sigma: width of the diagonal that costs little.

    Source: Tachibana et al., 2018, arXiv 1710.08969, section 4.1.
    """
    place_q = torch.arange(pattern.shape[2], device=pattern.device)
    place_k = torch.arange(pattern.shape[3], device=pattern.device)
    valid = (place_q < queries[:, None])[:, :, None] & (place_k < keys[:, None])[:, None]
    at = (place_q / queries[:, None])[:, :, None] - (place_k / keys[:, None])[:, None]
    cost = 1 - torch.exp(-at.square() / (2 * sigma**2))
    cells = valid.sum() * pattern.shape[1]
    return (pattern * torch.where(valid, cost, 0.0)[:, None].to(pattern)).sum() / cells


def _frame_weights(valid: Bool[Tensor, "batch frames"], masking: str) -> Tensor:
    """Weights of frames that sum to one over what counts."""
    if masking == "none":
        return torch.ones_like(valid, dtype=torch.float32) / valid.numel()
    if masking == "valid":
        return valid / valid.sum()
    return valid / (valid.sum(1, keepdim=True) * len(valid))


def _chosen(patterns: Mapping[str, Tensor], names: str, config: TTSLossConfig) -> Tensor:
    prefix, _, suffix = names.partition("*")
    found = [x for name, x in patterns.items() if name.startswith(prefix) and name.endswith(suffix)]
    layers = len(found) if config.guided_layers < 0 else config.guided_layers
    heads = found[0].shape[1] if config.guided_heads < 0 else config.guided_heads
    return torch.cat([x[:, :heads] for x in found[-layers:]], 1)


def both_maskings(masking: Sequence[bool]) -> Literal["valid", "utterance", "none"]:
    """The masking that the official pair of flags means.

    Args:
        masking: `use_masking` and `use_weighted_masking`.

    Raises:
        ValueError: both are set.

    Example:
        >>> both_maskings([True, True])
        Traceback (most recent call last):
        ValueError: use_masking and use_weighted_masking exclude each other
    """
    plain, weighted = masking
    if plain and weighted:
        raise ValueError("use_masking and use_weighted_masking exclude each other")
    return "valid" if plain else "utterance" if weighted else "none"
