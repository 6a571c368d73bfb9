"""Models of the package and their named variants."""

from dataclasses import replace
from typing import Any

from core_attn.variants import variant

from .bam import BAMConfig
from .classifier import Classifier, ClassifierConfig
from .decoder import Decoder, DecoderConfig, State
from .dha import DHAConfig
from .grassmann import GrassmannConfig
from .lama import Lama, LamaConfig
from .rcmha import RCMHAConfig
from .routing import RoutingConfig
from .spikegpt import SpikeGPTConfig
from .transformer import TransformerConfig
from .uoe import UoEConfig

GRASSMANN = GrassmannConfig(vocab=256, dim=64, depth=2, reduced=8, hidden=256)

VARIANTS: dict[str, DecoderConfig | LamaConfig | ClassifierConfig] = {
    "transformer": TransformerConfig(),
    "llama": TransformerConfig(
        positions="rotary", norm="rms", activation="silu", gated=True, qkv_bias=False,
        out_bias=False, bias=False, hidden=192,
    ),
    "spikegpt": SpikeGPTConfig(),
    "spikegpt_216m": SpikeGPTConfig(vocab=50277, context=1024, dim=768, depth=18),
    "grassmann": GRASSMANN,
    "grassmann_pre": replace(GRASSMANN, norm="pre"),
    "grassmann_13m": GrassmannConfig(),
    "grassmann_18m": GrassmannConfig(depth=12),
    "rcmha": RCMHAConfig(),
    "rmha": RCMHAConfig(conv=False),
    "mdha": RCMHAConfig(relative=False),
    "mha": RCMHAConfig(conv=False, relative=False),
    "uoe": UoEConfig(),
    "uoe_expert": UoEConfig(routing="expert"),
    "routing": RoutingConfig(selection="causal"),
    "routing_topk": RoutingConfig(),
    "routing_port": RoutingConfig(style="lucidrains", selection="causal"),
    "dha": DHAConfig(heads=8, k_maps=((0, 0, 0, 0, 1, 1, 1, 1), (0, 1, 0, 1, 0, 1, 2, 2)),
                     v_maps=((0, 1, 2, 3, 3, 2, 1, 0), (0, 0, 0, 0, 1, 1, 1, 1))),
    "bam": BAMConfig(heads=4, hidden=128),
    "bam_shared": BAMConfig(heads=4, hidden=128, kv="shared"),
    "btx": BAMConfig(heads=4, hidden=128, kv="single"),
    "bam_seed": TransformerConfig(
        heads=4, hidden=128, positions="rotary", norm="scale", activation="silu", gated=True,
        block="parallel", qkv_bias=False, out_bias=False, bias=False,
    ),
    "lama": LamaConfig(),
    "lama_mean": LamaConfig(pool="mean"),
    "encoder_classifier": ClassifierConfig(trunk=TransformerConfig(causal=False, context=512)),
    "spikegpt_classifier": ClassifierConfig(trunk=SpikeGPTConfig()),
    "uoe_classifier": ClassifierConfig(trunk=UoEConfig(routing="expert", causal=False)),
}  # fmt: skip

__all__ = [
    "VARIANTS",
    "Classifier",
    "ClassifierConfig",
    "Decoder",
    "DecoderConfig",
    "Lama",
    "LamaConfig",
    "State",
    "create",
]


def create(name: str, **changes: Any) -> Decoder | Lama | Classifier:
    """Builds a named variant, untrained.

    Args:
        name: a key of `VARIANTS`.
        changes: fields of its configuration that differ, as `vocab` or `depth`.

    Raises:
        ValueError: no variant or no field has that name.

    Example:
        >>> model = create("spikegpt", vocab=65, dim=32)
        >>> sum(p.numel() for p in model.parameters())
        31616
    """
    return variant(VARIANTS, name, **changes).build()
