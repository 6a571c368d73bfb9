"""Official configurations and state dicts of each system, and back where nothing is lost."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ..models import Classifier, DecoderConfig
from ..models.rcmha import RCMHAConfig
from ..models.routing import RoutingConfig
from ..models.spikegpt import SpikeGPTConfig
from ..models.transformer import TransformerConfig
from . import huggingface, rcmha, routing_transformer, spikegpt

# A name that only the official state dict has, and what converts it.
_KINDS: tuple[tuple[type[DecoderConfig], str, Callable[..., dict[str, Tensor]]], ...] = (
    (SpikeGPTConfig, "emb.weight", spikegpt.from_official),
    (RCMHAConfig, "src_embed.weight", rcmha.from_official),
    (RoutingConfig, "token_emb.weight", routing_transformer.from_official),
    (TransformerConfig, "model.embed_tokens.weight", huggingface.from_official),
)


def adapted(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """Weights under a model's names: official ones of its kind are converted, others stay.

    Args:
        state: of a file.
        model: of this package; a classifier takes what its trunk has.

    Raises:
        ValueError: official weights with unknown or missing keys; they are named.
    """
    is_classifier = isinstance(model, Classifier)
    config = model.config.trunk if is_classifier else getattr(model, "config", None)
    if not isinstance(config, DecoderConfig):
        return state
    for kind, mark, convert in _KINDS:
        if isinstance(config, kind) and mark in state:
            ours = convert(state, config)
            if not is_classifier:
                return ours
            return {f"trunk.{name}": x for name, x in ours.items() if not name.startswith("head.")}
    return state
